package sim

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/boltdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// disk is a host's store: what was synced, which survives everything but the
// loss of the disk.
type disk struct {
	stored  confdb.Stored
	slow    time.Duration // added to each write
	failing bool          // writes fail

	past   []snapshot // of this server, older than half a second
	noted  int64      // when the newest was taken
	deadly bool       // the next write of a term kills the agent before it is told
}

// snapshot is a disk as it was: a backup, or a host's snapshot.
type snapshot struct {
	server uint64
	stored confdb.Stored
	at     int64 // true time
}

const maxPast = 12

// note keeps a snapshot now and then. Writes never change what one holds.
func (d *disk) note(h *host) {
	if now := h.w.now; now >= d.noted+int64(300*time.Millisecond) {
		d.noted = now
		d.past = append(d.past, snapshot{h.server, d.stored, now})
		if n := len(d.past); n > maxPast {
			d.past = append(d.past[:0], d.past[n-maxPast:]...)
		}
	}
}

// open starts the driver from what the disk holds.
func (d *disk) open(h *host) (confdb.Driver, *confdb.State, uint64) {
	var drv confdb.Driver
	var state *confdb.State
	var index uint64
	var err error
	switch {
	case h.w.cfg.Model == spec.SingleNode, h.single() && !raftdb.Holds(d.stored):
		drv, state, index, err = boltdb.New(boltdb.Config{ServerID: h.server, Stored: d.stored})
	case h.w.cfg.Model == spec.SingleQuorum:
		drv, state, index, err = diskdb.New(diskdb.Config{ServerID: h.server, ClusterID: "sim", Device: "/dev/sim", Seed: h.w.rng.Uint64(), Now: h.now()})
	default:
		drv, state, index, err = raftdb.New(raftdb.Config{ServerID: h.server, Seed: h.w.rng.Uint64(), Stored: d.stored, Now: h.now()})
	}
	if err != nil {
		h.w.violate("", []*host{h}, "%s: its own disk can't be read: %v", h.name, err)
	}
	return drv, state, index
}

// crash loses nothing that was synced; a write under way is there or not.
func (d *disk) crash(w *world, under *confdb.Persist) {
	if under != nil && w.chance(0.5) {
		d.stored.Write(*under)
	}
}

// write is the store's goroutine: one synced write after the other.
func (a *agent) write() {
	if a.under != nil || len(a.writing) == 0 {
		return
	}
	p := a.writing[0]
	a.under = &p.What
	a.writing = a.writing[1:]
	w := a.h.w
	took := w.between(200*time.Microsecond, 6*time.Millisecond)
	if w.faults.on && w.chance(0.03) {
		took = w.between(10*time.Millisecond, 120*time.Millisecond)
	}
	if a.h.disk.deadly && p.What.HardState != nil && w.faults.on {
		a.h.disk.deadly = false
		w.after(w.between(0, took), func() {
			if a.h.agent == a && !w.quiet() {
				a.h.tell("dies while its term is being written")
				a.h.killAgent()
				w.restartLater(a.h, w.between(time.Millisecond, time.Second))
			}
		})
	}
	var done func()
	done = func() {
		switch {
		case a.h.agent != a:
			return // it died with the write under way
		case a.h.suspended:
			a.h.atResume = append(a.h.atResume, done)
			return
		case a.h.disk.failing:
			if w.chance(0.5) {
				a.h.disk.stored.Write(p.What) // it says that it failed, and didn't
			}
			a.under = nil
			a.input(member.PersistFailed{N: p.N, Err: "simulated: input/output error"})
			a.write()
			return
		}
		a.h.disk.note(a.h)
		a.h.disk.stored.Write(p.What)
		a.under = nil
		if w.atEdge(edgePersist, a.h, "", 0) || p.What.Grows && a.dieGrowing() {
			return
		}
		a.input(member.Persisted{N: p.N})
		a.write()
	}
	w.after(took+a.h.disk.slow, done)
}
