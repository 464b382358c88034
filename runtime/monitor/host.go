package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/runtime/address"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// host runs programs and holds addresses for resources: resource.Host.
type host struct {
	kids    *children
	record  *record
	ledger  ledger // the record, but in a separate monitor
	addrs   *address.Holder
	cgroups cgroups
	program string // this program's file, for guardians
	say     func(LogWord)
}

var _ resource.Host = (*host)(nil)

// Hold adds an address, to a device that this process holds open and that is
// in the record, on disk, before.
func (h *host) Hold(ctx context.Context, a resource.Address) (resource.HeldAddress, error) {
	held, err := h.addrs.Hold(ctx, address.Request{Address: a.Address, Bits: a.Bits, Interface: a.Interface, Probe: a.Probe, Record: h.ledger.adding})
	if err != nil {
		return nil, err // and not a nil *address.Held
	}
	h.say(LogWord{Level: "info", Text: "address added", Args: map[string]any{"address": a.Address.String(), "interface": held.Where()}})
	return held, nil
}

// Undo keeps a program that the next monitor runs before it is ready.
func (h *host) Undo(p resource.Program) (func() error, error) {
	id, err := h.ledger.undo(p)
	if err != nil {
		return nil, err
	}
	return func() error { return h.ledger.undone(id) }, nil
}

func (h *host) Tell(text string) { h.say(LogWord{Level: "warn", Text: text}) }

// ownProgram is the file to start guardians from: the one named, while it is
// still this process's program, so that ps shows its name; else this very
// program, though its file be replaced or removed.
func ownProgram(named string) string {
	const self = "/proc/self/exe"
	a, err1 := os.Stat(self)
	b, err2 := os.Stat(named)
	if err1 == nil && err2 == nil && os.SameFile(a, b) {
		return named
	}
	return self
}

// guarded is a program under its guardian, as the monitor sees it.
type guarded struct {
	host   *host
	name   string
	child  *child // the guardian
	conn   net.Conn
	pid    int
	exited chan struct{}
	gone   chan struct{}
	cgroup string // "": it has none
	clean  bool   // it ended with exit status 0; once exited is closed

	mu   sync.Mutex
	exit error
}

// Guard starts a program under a guardian. The guardian stands in the record,
// on disk, before it is told to start the program.
func (h *host) Guard(ctx context.Context, p resource.Program) (resource.Guarded, error) {
	g, err := h.guard(ctx, p, true)
	if err != nil {
		return nil, err // and not a nil *guarded
	}
	return g, nil
}

func (h *host) guard(ctx context.Context, p resource.Program, recorded bool) (*guarded, error) {
	mine, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	p.Env = append(p.Env, tokenVariable+"="+h.record.token)
	cgroup := ""
	if recorded {
		if cgroup, err = h.cgroups.new(); err != nil {
			conn.Close()
			theirs.Close()
			return nil, err
		}
	}
	monitor := fmt.Sprint(os.Getpid())
	ch, err := h.kids.start(h.program,
		func(thread int) []string {
			return []string{"clusterplan", "guard", p.Name, monitor, fmt.Sprint(thread)}
		},
		&syscall.ProcAttr{
			Dir:   "/",
			Env:   []string{"GOMAXPROCS=1", tokenVariable + "=" + h.record.token},
			Files: []uintptr{0, 1, 2, theirs.Fd()},
			Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: guardDeathSignal},
		})
	theirs.Close()
	if err != nil {
		conn.Close()
		dropCgroup(cgroup)
		return nil, fmt.Errorf("its guardian: %w", err)
	}
	g := &guarded{host: h, name: p.Name, child: ch, conn: conn, cgroup: cgroup, exited: make(chan struct{}), gone: make(chan struct{})}
	if recorded {
		err = h.record.started(ch.pid, ch.start)
	}
	var first guardWord
	in := newLineReader(conn)
	if err == nil {
		g.send(guardOrder{Go: &p, Cgroup: cgroup})
		// When the wait is given up, the guardian is told to kill what it may
		// have started, and it is waited for below.
		stop := context.AfterFunc(ctx, func() { g.send(guardOrder{Kill: true}) })
		err = in.read(&first)
		stop()
		switch {
		case err != nil:
			err = errors.New("its guardian died")
		case first.Error != "":
			err = errors.New(first.Error)
		case first.Running == 0:
			err = errors.New("its guardian spoke out of turn")
		}
	}
	g.pid = first.Running
	if first.NoCgroup != "" {
		h.say(LogWord{Level: "warn", Text: "a program could not be started in a cgroup of its own: its guardian alone holds it", Args: map[string]any{"resource": p.Name, "err": first.NoCgroup}})
	}
	if err != nil {
		conn.Close() // the guardian kills what it has, and ends
		g.end()
		return nil, err
	}
	go g.listen(in)
	return g, nil
}

// listen takes the guardian's words until it has ended.
func (g *guarded) listen(in *lineReader) {
	var proved bool
	for {
		var w guardWord
		err := in.read(&w)
		if errors.Is(err, errLine) {
			continue
		}
		if err != nil {
			break
		}
		if w.Exit != nil {
			g.clean = *w.Exit == guardExit{LastLine: w.Exit.LastLine}
			g.ended(exitError(w.Exit))
		}
		if w.Gone {
			proved = true
			close(g.gone) // before its guardian's end, which may take a moment
			break
		}
	}
	if !proved {
		g.end()
		g.ended(errors.New("its guardian was killed, and so was the program"))
		close(g.gone)
	} else {
		g.ended(errors.New("ended"))
		<-g.child.ended
		g.host.record.ended(g.child.pid)
	}
	g.conn.Close()
}

// end waits for the guardian's end, then kills what it leaves behind.
func (g *guarded) end() {
	select {
	case <-g.child.ended:
	case <-time.After(time.Second):
		// It closed its socket and still lives: no guardian of ours.
		g.host.kids.signal(g.child, unix.SIGKILL)
		<-g.child.ended
	}
	tell := func(since time.Duration) {
		g.host.say(LogWord{Level: "error", Text: "processes that a guardian left behind can't be killed yet",
			Args: map[string]any{"resource": g.name, "since": since.Round(time.Second).String()}})
	}
	cgroup.Empty(g.cgroup, tell)
	dropCgroup(g.cgroup)
	g.host.kids.sweep(tell)
	g.host.record.ended(g.child.pid)
}

// ended keeps the first account of the program's end.
func (g *guarded) ended(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.exit == nil {
		g.exit = err
		close(g.exited)
	}
}

func (g *guarded) send(o guardOrder) {
	line, err := encodeLine(o)
	if err != nil {
		return // a start too long for a line: the guardian hears the socket close
	}
	_ = g.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := g.conn.Write(line); err != nil {
		// A guardian that takes no orders hangs or is stopped: killing it
		// kills the program, and its orphans become ours.
		g.host.kids.signal(g.child, unix.SIGKILL)
	}
}

func (g *guarded) PID() int                { return g.pid }
func (g *guarded) Exited() <-chan struct{} { return g.exited }
func (g *guarded) Gone() <-chan struct{}   { return g.gone }
func (g *guarded) Well() bool              { return g.clean }
func (g *guarded) Stop(sig int)            { g.send(guardOrder{Stop: sig}) }

func (g *guarded) ExitError() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.exit
}

// killPatience is how long a guardian has to prove that all is gone before it
// is killed itself: then the program dies by PDEATHSIG, and its orphans are
// the monitor's to kill. A hanging guardian must not outlive a lease.
const killPatience = 20 * time.Millisecond

// Kill kills all of it.
func (g *guarded) Kill() {
	g.send(guardOrder{Kill: true})
	g.host.kids.signal(g.child, unix.SIGCONT) // a stopped guardian wakes
	time.AfterFunc(killPatience, func() {
		select {
		case <-g.gone:
		default:
			g.host.kids.signal(g.child, unix.SIGKILL)
		}
	})
}

// exitError is an exit in words.
func exitError(e *guardExit) error {
	text := fmt.Sprintf("ended with exit status %d", e.Status)
	if e.Signal != 0 {
		text = "was ended by " + signalName(unix.Signal(e.Signal))
	}
	if e.LastLine != "" {
		text += fmt.Sprintf("; its last line: %s", e.LastLine)
	}
	return errors.New(text)
}

// Run runs a check's command, under a guardian as well: a program on a disk
// that hangs stops its parent until it has been read, which must not be the
// monitor. It stands in no record; the token finds what may be left of it.
func (h *host) Run(ctx context.Context, p resource.Program) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g, err := h.guard(ctx, p, false)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	select {
	case <-g.Exited(): // its guardian kills what it left in the background
	case <-ctx.Done():
		g.Kill()
	}
	<-g.Gone()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if g.clean {
		return nil
	}
	return g.ExitError()
}
