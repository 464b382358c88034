package monitor

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// children starts and reaps all of the monitor's child processes, which are
// guardians. The monitor is a subreaper, so it also gets the orphans of
// guardians that died; whatever child it didn't start itself is such a stray,
// and is killed (sweep).
//
// os/exec isn't used here: its waiting and the reaping of strays would take
// each other's children.
type children struct {
	starts chan startRequest

	mu    sync.Mutex // held over fork and registration, and over reaping
	known map[int]*child
}

// child is a process that the monitor started.
type child struct {
	pid    int
	start  uint64        // its start time
	ended  chan struct{} // closed once it was reaped
	status syscall.WaitStatus
}

type startRequest struct {
	path  string
	args  func(thread int) []string
	attr  *syscall.ProcAttr
	reply chan startReply
}

type startReply struct {
	child *child
	err   error
}

// newChildren makes this process a subreaper. Run must run before start.
func newChildren() (*children, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	return &children{starts: make(chan startRequest), known: map[int]*child{}}, nil
}

// runStarts starts children from one thread that ends only with the process:
// PDEATHSIG is sent when the thread that started a child ends.
func (c *children) runStarts() {
	runtime.LockOSThread()
	thread := unix.Gettid()
	for r := range c.starts {
		ch := &child{ended: make(chan struct{})}
		c.mu.Lock()
		// Who starts a program keeps one of Go's processors until the kernel has
		// found it, perhaps on a disk that is busy for longer than a lease: the
		// loop has another meanwhile.
		runtime.GOMAXPROCS(processors + 1)
		pid, err := syscall.ForkExec(r.path, r.args(thread), r.attr)
		runtime.GOMAXPROCS(processors)
		if err == nil {
			ch.pid = pid
			if s, serr := statOf(pid); serr == nil { // not reaped: it is there
				ch.start = s.start
			}
			c.known[pid] = ch
		}
		c.mu.Unlock()
		r.reply <- startReply{ch, err}
	}
}

// runReaps reaps.
func (c *children) runReaps() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	for range signals {
		c.reap()
	}
}

// reap reaps what has ended.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := reapOne(&ws, syscall.WNOHANG)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ch := c.known[pid]; ch != nil {
			delete(c.known, pid)
			ch.status = ws
			close(ch.ended)
		}
	}
}

// start starts a program; args gets the id of the thread that does.
func (c *children) start(path string, args func(thread int) []string, attr *syscall.ProcAttr) (*child, error) {
	r := startRequest{path: path, args: args, attr: attr, reply: make(chan startReply, 1)}
	c.starts <- r
	reply := <-r.reply
	return reply.child, reply.err
}

// signal signals a child if it wasn't reaped yet.
func (c *children) signal(ch *child, sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[ch.pid] != ch {
		return
	}
	_ = unix.Kill(ch.pid, sig)
}

// strays tells whether there is a child that this process didn't start.
func (c *children) strays() bool {
	c.mu.Lock() // no start or reaping meanwhile: the list is one moment's
	defer c.mu.Unlock()
	for _, pid := range childrenOf(os.Getpid()) {
		if c.known[pid] == nil {
			return true
		}
	}
	return false
}

// sweep kills all strays with their descendants and returns when there are
// none. tell is called now and then while it takes long.
func (c *children) sweep(tell func(since time.Duration)) {
	began, told := time.Now(), time.Second
	for wait := time.Millisecond; c.strays(); wait = min(wait*2, 50*time.Millisecond) {
		c.mu.Lock() // what is looked up in /proc the while is not reaped (reapOne says why)
		signalDescendants(unix.SIGKILL, 0, func(pid int) bool { return c.known[pid] != nil })
		c.mu.Unlock()
		time.Sleep(wait)
		c.reap()
		if since := time.Since(began); since > told {
			tell(since)
			told *= 2
		}
	}
}
