package monitor

import (
	"os"
	"path/filepath"

	"github.com/clusterplan/clusterplan/internal/boottime"
)

// Groups with no_quorum = "freeze" run in a monitor process beside the node's: the
// freezer. It is the same program, with a lock, a record and a cgroup of its own,
// and differs in one thing: as long as its agent is there, it neither stops
// anything at the lease's end nor sets the kernel's timer. Starts need a lease as
// ever. So the node's monitor may be killed beside it, and what is frozen goes on.
//
// That is safe as no wait frees such a group from a lost node: only a fence, a
// release, or a person's word. When its agent dies, the freezer is a monitor like
// any other: it stops everything, within stop_within from then if the lease is
// over already, and the kernel's timer stands behind it. A new agent's freezer
// waits for its lock, cleans up, and only then does that agent ask for a lease.

// Names in a node's run directory.
const (
	lockFile          = "node.lock"
	recordFile        = "record.json"
	freezerLockFile   = "freezer.lock"
	freezerRecordFile = "freezer.json"
)

// HadFreezer tells whether the node in that directory ever had a freezer: one may
// have left something.
func HadFreezer(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "run", freezerRecordFile))
	return err == nil || !os.IsNotExist(err) // what can't be told is taken for so
}

// lasts tells whether what is hosted goes on at the lease's end.
func (m *monitor) lasts() bool { return m.conf.Freezer && !m.alone }

// thaw is when a freezer's agent is gone: from here on the lease counts, as if it
// ended now if it is over.
func (m *monitor) thaw() {
	if m.conf.Freezer {
		m.lease = max(m.lease, boottime.Now())
	}
}

// files are the names of the monitor's lock and record.
func (c Configure) files() (lock, record string) {
	if c.Freezer {
		return freezerLockFile, freezerRecordFile
	}
	return lockFile, recordFile
}
