package localstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
)

// process is where a lock's holder runs, so that a dead one is told from a
// live one: a process id means something only within one boot and one
// namespace, and is used again, so its start is kept too.
type process struct {
	Host      string `json:"host"`
	PID       int    `json:"pid"`
	Started   uint64 `json:"started"`   // clock ticks since boot
	Boot      string `json:"boot"`      // the kernel's boot id
	Namespace string `json:"namespace"` // of process ids
}

func self() (process, error) {
	p := process{PID: os.Getpid()}
	var err error
	if p.Host, err = os.Hostname(); err != nil {
		return p, fmt.Errorf("lock state: %w", err)
	}
	p.Boot, p.Namespace = here()
	p.Started, _ = started(p.PID)
	return p, nil
}

// here is this boot and namespace; "" where the system doesn't tell.
func here() (boot, namespace string) {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	n, _ := os.Readlink("/proc/self/ns/pid")
	return string(bytes.TrimSpace(b)), n
}

// started is when a process was started; false: there is none, or it is dead
// and only waits to be reaped.
func started(pid int) (uint64, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The command, in parentheses, may hold anything; the state follows it as
	// field 3, the start is field 22.
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	n, err := strconv.ParseUint(fields[19], 10, 64)
	return n, err == nil
}

// alive tells whether a lock's holder may still be at work. Here that is
// known; of another host, or a container, only the lock's last renewal is.
func (s *Store) alive(h *Info) (bool, error) {
	boot, namespace := here()
	if h.Boot != "" && h.Boot == boot && h.Namespace != "" && h.Namespace == namespace {
		at, running := started(h.PID)
		return running && at == h.Started, nil
	}
	age, err := s.sinceRenewal()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err != nil || age < s.opts.Lease, err
}

// sinceRenewal is the lock file's age by the clock of its file system, which
// is that of the host that renews it or of the server that both write to: a
// new file's time is now.
func (s *Store) sinceRenewal() (time.Duration, error) {
	lock, err := os.Stat(s.lock())
	if err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), atomicfile.Prefix+filepath.Base(s.path)+"-now-*")
	if err != nil {
		return 0, s.fileError("lock", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	now, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return now.ModTime().Sub(lock.ModTime()), nil
}
