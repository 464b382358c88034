package monitor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// A guardian is a small process between the monitor and one program. It is
// the parent of the program and the subreaper of all its descendants, so that
// none leaves it by a double fork or a session of its own, and "wait says that
// there are no children" is the proof that nothing is left.
//
// What dies when:
//   - the monitor (any way: killed, crashed, by the dead man's timer): its end
//     of the socket closes, and the kernel sends the guardian SIGCONT
//     (PDEATHSIG), which wakes even a stopped guardian and doesn't wait for a
//     monitor's thread that hangs in a disk. It kills all and ends.
//   - the guardian: the program dies by PDEATHSIG; its descendants become the
//     monitor's children, which kills them (children.go).
//   - both at one blow: the program dies; descendants that it had are found by
//     the next monitor (cleanup.go).
//
// PDEATHSIG belongs to the parent's thread: both parents start children from
// threads that never end before the process does.

// guardOrder is the monitor's word to a guardian.
type guardOrder struct {
	Go   *resource.Program `json:"go,omitempty"`   // first: start it
	Stop int               `json:"stop,omitempty"` // a signal's number
	Kill bool              `json:"kill,omitempty"`

	Cgroup string `json:"cgroup,omitempty"` // with Go: where it runs; "": in the guardian's own
}

// guardWord is a guardian's word to the monitor.
type guardWord struct {
	Running  int        `json:"running,omitempty"`   // pid of the program
	Error    string     `json:"error,omitempty"`     // it could not be started
	NoCgroup string     `json:"no_cgroup,omitempty"` // with Running: why it runs outside of the cgroup
	Exit     *guardExit `json:"exit,omitempty"`      // the program's first process ended
	Gone     bool       `json:"gone,omitempty"`      // nothing is left; last
}

// guardExit says how a program ended.
type guardExit struct {
	Status   int    `json:"status"`
	Signal   int    `json:"signal,omitempty"`
	LastLine string `json:"last_line,omitempty"` // of its output
}

// tokenVariable marks, in the environment, what a monitor started.
const tokenVariable = "CLUSTERPLAN_MONITOR"

// guardDeathSignal is what the kernel sends a guardian when the monitor's
// thread that started it ends. Its default action is only to wake.
const guardDeathSignal = unix.SIGCONT

// GuardMain is the guardian's main: the hidden command `clusterplan guard
// NAME MONITOR THREAD`, started by a monitor with a socket as fd 3.
func GuardMain(args []string) int {
	if len(args) != 3 {
		fmt.Fprintln(os.Stderr, "clusterplan guard is started by clusterplan monitor")
		return 2
	}
	monitor, err1 := strconv.Atoi(args[1])
	thread, err2 := strconv.Atoi(args[2])
	if err1 != nil || err2 != nil {
		fmt.Fprintln(os.Stderr, "clusterplan guard is started by clusterplan monitor")
		return 2
	}
	// This thread starts the program and lives as long as the process.
	runtime.LockOSThread()
	debug.SetGCPercent(20) // little garbage, and little memory
	if err := plainChildren(); err != nil {
		fmt.Fprintln(os.Stderr, "clusterplan guard: the program's priority:", err)
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, guardDeathSignal, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "clusterplan guard: subreaper:", err)
		return 1
	}
	if os.Getppid() != monitor {
		return 1 // it died before the kernel was told to signal us
	}
	unix.CloseOnExec(3)
	file := os.NewFile(3, "monitor")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "clusterplan guard: fd 3:", err)
		return 1
	}
	g := &guard{monitor: monitor, thread: thread, conn: conn, signals: signals, drained: make(chan struct{})}
	return g.run()
}

// guard is a guardian's state. Its main goroutine owns all of it but what the
// mutex guards.
type guard struct {
	monitor, thread int
	conn            net.Conn
	signals         chan os.Signal
	out             *pump
	drained         chan struct{} // the output has come to its end
	cgroup          string        // the program's; "": it has none
	noCgroup        string        // why it has none, though it should

	mu     sync.Mutex
	leader int // the program's pid; 0: not started, or reaped
}

func (g *guard) run() int {
	orders := make(chan guardOrder)
	go g.listen(orders)
	o, ok := <-orders
	if !ok || o.Go == nil {
		return 1
	}
	g.cgroup = o.Cgroup
	pid, err := g.start(*o.Go)
	if err != nil {
		dropCgroup(g.cgroup)
		g.say(guardWord{Error: err.Error()})
		g.say(guardWord{Gone: true})
		return 0
	}
	g.say(guardWord{Running: pid, NoCgroup: g.noCgroup})

	exits := make(chan syscall.WaitStatus, 1)
	gone := make(chan struct{})
	go g.reap(pid, exits, gone)
	Trim()

	stays := o.Go.Stays
	var stopping unix.Signal
	var killing bool
	for {
		var again <-chan time.Time
		if killing {
			cgroup.Kill(g.cgroup)
			g.signalAll(unix.SIGKILL, 0)
			again = time.After(5 * time.Millisecond)
		}
		select {
		case o, ok := <-orders:
			switch {
			case !ok: // the monitor is gone
				orders, killing = nil, true
			case o.Kill:
				killing = true
			case o.Stop != 0:
				stopping = unix.Signal(o.Stop)
				g.signalGroup(stopping)
			}
		case s := <-g.signals:
			// SIGCONT comes from the kernel when the monitor dies, or from
			// anyone; the others mean: end.
			killing = killing || s != guardDeathSignal || g.monitorDied()
		case ws := <-exits:
			if stays && !killing && ws.Exited() && ws.ExitStatus() == 0 {
				// What it has left is what it was for.
			} else if stopping != 0 && !killing {
				// What is left in other groups is asked to stop as well, and
				// all may take the time that the program has.
				g.signalAll(stopping, pid)
			} else {
				killing = true
				cgroup.Kill(g.cgroup)
				g.signalAll(unix.SIGKILL, 0)
			}
			g.say(guardWord{Exit: g.exitOf(ws)})
		case <-again:
		case <-gone:
			for !cgroup.Kill(g.cgroup) { // what got itself another parent
				time.Sleep(time.Millisecond)
			}
			dropCgroup(g.cgroup)
			select {
			case ws := <-exits:
				g.say(guardWord{Exit: g.exitOf(ws)})
			default:
			}
			g.say(guardWord{Gone: true})
			select { // the last output, unless a stranger holds the pipe
			case <-g.drained:
			case <-time.After(time.Second):
			}
			return 0
		}
	}
}

// listen reads the monitor's orders; the channel closes with its socket.
func (g *guard) listen(orders chan<- guardOrder) {
	defer close(orders)
	in := newLineReader(g.conn)
	for {
		var o guardOrder
		if err := in.read(&o); errors.Is(err, errLine) {
			continue
		} else if err != nil {
			return
		}
		orders <- o
	}
}

// say tells the monitor. A monitor that doesn't listen any more must not hold
// a guardian up that is killing.
func (g *guard) say(w guardWord) {
	line, err := encodeLine(w)
	if err != nil {
		return
	}
	_ = g.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = g.conn.Write(line)
}

// start starts the program in a session of its own.
func (g *guard) start(p resource.Program) (int, error) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	var log *rotated // nil: only the last line is kept
	if p.Log != "" {
		if log, err = openRotated(p.Log, p.LogMax, p.LogKeep); err != nil {
			return 0, fmt.Errorf("its log: %w", err)
		}
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("pipe: %w", err)
	}
	out := os.NewFile(uintptr(fds[1]), "output")
	defer out.Close()
	if g.out, err = newPump(fds[0], log); err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{
		Dir:   p.Dir,
		Env:   p.Env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL, Credential: credential(p.User)},
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	pid, err := g.forkExec(p, attr)
	if err != nil {
		return 0, execError(p.Path, err)
	}
	g.leader = pid
	go func() {
		g.out.run()
		close(g.drained)
	}()
	return pid, nil
}

// forkExec starts the program in its cgroup; where that can't be, beside it.
func (g *guard) forkExec(p resource.Program, attr *syscall.ProcAttr) (int, error) {
	if g.cgroup == "" {
		return syscall.ForkExec(p.Path, p.Args, attr)
	}
	fd, first := unix.Open(g.cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if first == nil {
		defer unix.Close(fd)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
		pid, err := syscall.ForkExec(p.Path, p.Args, attr)
		if err == nil {
			return pid, nil
		}
		first = err
	}
	// Was it the cgroup, or the program?
	attr.Sys.UseCgroupFD = false
	pid, err := syscall.ForkExec(p.Path, p.Args, attr)
	if err == nil {
		g.noCgroup = first.Error()
	}
	return pid, err
}

func credential(u *resource.User) *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// execError says why a program could not be started.
func execError(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s, or the interpreter in its first line, is not there", path)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s is no program for this machine, and has no first line that names an interpreter", path)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (another user needs root)", err)
	}
	return err
}

// reap reaps the program and every descendant that outlived its parent, until
// there are none: gone is then closed.
func (g *guard) reap(leader int, exits chan<- syscall.WaitStatus, gone chan<- struct{}) {
	defer close(gone)
	for {
		// Waits without reaping, so that signalGroup never meets an id that
		// was used again.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // ECHILD
		}
		g.mu.Lock()
		var ws syscall.WaitStatus
		pid, err := reapOne(&ws, syscall.WNOHANG)
		if err == nil && pid == leader {
			g.leader = 0
			exits <- ws
		}
		g.mu.Unlock()
	}
}

// signalGroup signals the program's process group while the program lives.
func (g *guard) signalGroup(sig unix.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leader != 0 {
		_ = unix.Kill(-g.leader, sig)
	}
}

// signalAll signals all descendants but those in the process group notGroup. What is
// looked up in /proc the while is not reaped (reapOne says why).
func (g *guard) signalAll(sig unix.Signal, notGroup int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	signalDescendants(sig, notGroup, nil)
}

// monitorDied tells whether the thread that started this process is gone or
// going.
func (g *guard) monitorDied() bool {
	if os.Getppid() != g.monitor {
		return true
	}
	s, err := readStat(fmt.Sprintf("/proc/%d/task/%d/stat", g.monitor, g.thread))
	return err != nil || s.dead()
}

// exitOf is how the program ended. Its last words may still be in the pipe:
// they are waited for, but not for long.
func (g *guard) exitOf(ws syscall.WaitStatus) *guardExit {
	e := &guardExit{}
	if ws.Signaled() {
		e.Signal = int(ws.Signal())
	} else {
		e.Status = ws.ExitStatus()
	}
	e.LastLine = g.out.lastLine(20 * time.Millisecond)
	return e
}
