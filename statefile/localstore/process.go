package localstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	ok := false
	if p.Started, ok = started(p.PID); !ok || p.Started == 0 {
		p.Boot = "" // nobody could tell it from another process with its id: its heartbeat counts
	}
	return p, nil
}

// here is this boot and namespace; "" where the system doesn't tell.
func here() (boot, namespace string) {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	n, _ := os.Readlink("/proc/self/ns/pid")
	return string(bytes.TrimSpace(b)), n
}

// started is when a process was started; false: there is none, or it is dead
// and only waits to be reaped. 0, true: that can't be seen now.
func started(pid int) (uint64, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, false
	}
	if err != nil { // no more files can be opened, for example
		return 0, true
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

// sameSystem tells whether the holder's process id means something here. Virtual
// machines that were cloned while they ran share all but the name.
func (p *process) sameSystem() bool {
	boot, namespace := here()
	host, _ := os.Hostname()
	return p.Boot != "" && p.Boot == boot && p.Namespace != "" && p.Namespace == namespace && p.Host == host
}

// running tells whether a process of this system is there still; a suspended one is.
func (p *process) running() bool {
	at, running := started(p.PID)
	return running && (at == p.Started || at == 0)
}

// watch is what one taker has seen of a lock whose holder it can't look at:
// another host's, a container's. No two clocks are compared: the holder counts up
// a number in the lock, and it is dead once that stood still for a whole term of
// the taker's own monotonic clock.
type watch struct {
	sign  string // of life, as it was seen last
	id    string
	since time.Time
	beats bool // it changed since it was seen first
}

// dead looks at the lock once more. beats: it is alive for sure.
func (w *watch) dead(s *Store, h *Info) (dead bool) {
	sign := h.ID + h.Heartbeat
	if fi, err := os.Stat(s.lock()); err == nil { // an older program only touches the file
		sign += fi.ModTime().String()
	}
	if sign != w.sign {
		*w = watch{sign: sign, id: h.ID, since: time.Now(), beats: w.id == h.ID}
	}
	return time.Since(w.since) >= max(s.opts.Lease, time.Duration(h.TermMS)*time.Millisecond)
}
