package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/rawio"
)

// Options say which monitor process to start.
type Options struct {
	Configure Configure // its first order; Program is the file that is run
	Args      []string  // default: "monitor"
	Env       []string  // default: this process's
	Stderr    *os.File  // where a crash is told; default: this process's
}

// maxBacklog bounds the orders that a monitor has not taken yet. A monitor that
// is this far behind hangs; the kernel kills it at its lease's end.
const maxBacklog = 4096

// ErrBacklog says that the monitor doesn't take orders any more.
var ErrBacklog = errors.New("the monitor takes no orders: it hangs or is stopped")

// ErrClosed says that the monitor is gone or the connection to it closed.
var ErrClosed = errors.New("the monitor is gone")

// Process is a monitor process as its agent sees it. It owns three goroutines,
// which end with the process. The monitor outlives an agent that dies, until
// its lease's end.
type Process struct {
	cmd   *exec.Cmd
	conn  net.Conn
	quiet io.ReadWriter // conn, by calls that cost little
	board *board
	ready atomic.Pointer[ReadyWord] // what it said when it was; nil: not yet
	words chan Word
	quit  chan struct{} // closed: nobody reads words any more
	done  chan struct{}
	ended chan struct{} // closed once the process is gone, before done

	mu        sync.Mutex
	queue     []queued
	wake      chan struct{} // capacity 1: the queue has something; closed with it
	closed    bool
	abandoned sync.Once
	reason    error
}

// queued is an order as a line.
type queued struct {
	line  []byte
	renew bool
}

// StartProcess starts a monitor and gives it its first order, Configure. It takes
// Starts once its Ready word has come, which may take as long as an earlier
// monitor of the same node lives. When ctx ends, the process is killed.
func StartProcess(ctx context.Context, o Options) (*Process, error) {
	if o.Args == nil {
		o.Args = []string{"monitor"}
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	mine, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start the monitor: %w", err)
	}
	defer theirs.Close()
	board, memory, err := newBoard()
	if err != nil {
		mine.Close()
		return nil, fmt.Errorf("start the monitor: %w", err)
	}
	defer memory.Close()
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		return nil, fmt.Errorf("start the monitor: %w", err)
	}
	q, err := quiet(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the monitor: %w", err)
	}
	cmd := exec.CommandContext(ctx, o.Configure.Program, o.Args...)
	cmd.Env = o.Env
	cmd.Dir = o.Configure.Dir
	cmd.Stderr = o.Stderr
	cmd.ExtraFiles = []*os.File{theirs, memory} // fd 3 and 4
	// A session of its own: a terminal's signals are for the agent, which
	// stops what the monitor hosts in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the monitor: %w", err)
	}
	p := &Process{
		cmd: cmd, conn: conn, quiet: q, board: board,
		words: make(chan Word, 256),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
		ended: make(chan struct{}),
		wake:  make(chan struct{}, 1),
	}
	configure := o.Configure
	if err := p.Send(Order{Configure: &configure}); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start the monitor: %w", err)
	}
	var ends sync.WaitGroup
	ends.Add(2)
	go func() { defer ends.Done(); p.read() }()
	go func() { defer ends.Done(); p.write() }()
	go func() {
		err := cmd.Wait()
		close(p.ended)
		p.hangUp()
		ends.Wait()
		p.reason = exitReason(cmd.ProcessState, err)
		close(p.words)
		close(p.done)
	}()
	return p, nil
}

// quiet is conn by calls that Go's scheduler isn't told of: there is a lease to
// pass on many times a second.
func quiet(conn net.Conn) (io.ReadWriter, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T is no socket of the kernel", conn)
	}
	return rawio.New(c)
}

// socketPair returns two connected stream sockets that no program inherits by
// accident.
func socketPair() (mine, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	// Only our end: the other is inherited by a child that may want it blocking.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "monitor"), nil
}

// PID is the monitor's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Send queues an order and never blocks. It fails once the monitor is gone or
// takes no orders any more; the caller can then do no better than wait for Done
// (or Kill it).
//
// A Renew is there at once, before what is still in the queue. It takes no place
// in it, unless it makes the lease shorter: only then the monitor has to hear
// of it before it looks by itself.
func (p *Process) Send(o Order) error {
	if o.Renew != nil && p.board.write(*o.Renew) <= *o.Renew {
		return nil
	}
	line, err := encodeLine(o)
	if err != nil {
		return fmt.Errorf("an order to the monitor: %w", err)
	}
	q := queued{line: line, renew: o.Renew != nil}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if n := len(p.queue); n > 0 && q.renew && p.queue[n-1].renew {
		p.queue[n-1] = q
		return nil
	}
	if len(p.queue) >= maxBacklog {
		return ErrBacklog
	}
	p.queue = append(p.queue, q)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return nil
}

// Words are the monitor's words, in order; closed when it is gone. Whoever
// started the monitor must read them.
func (p *Process) Words() <-chan Word { return p.words }

// Done is closed when the process is gone and all its words were read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended, once Done is closed: nil for exit status 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.reason
	default:
		return nil
	}
}

// Close hangs up: the monitor serves until its lease's end, stops all and
// exits. Words that were not read are lost.
func (p *Process) Close() {
	p.abandoned.Do(func() { close(p.quit) })
	p.hangUp()
}

// Kill kills the process, and with it what it hosts. Wait for Done.
func (p *Process) Kill() {
	p.abandoned.Do(func() { close(p.quit) })
	// It fails only when the process is gone already.
	_ = p.cmd.Process.Kill()
}

// hangUp ends the writer, and the reader once it has read what was sent.
func (p *Process) hangUp() {
	p.refuse()
	if u, ok := p.conn.(*net.UnixConn); ok {
		_ = u.CloseWrite() // the monitor sees the end of its orders
	}
}

// refuse takes no more orders.
func (p *Process) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.wake)
	}
}

func (p *Process) read() {
	in := newLineReader(p.quiet)
	for {
		var w Word
		err := in.read(&w)
		if errors.Is(err, errLine) {
			w = Word{Log: &LogWord{Level: "warn", Text: "a word of the monitor was left out", Args: map[string]any{"err": err.Error()}}}
		} else if err != nil {
			// The end, or a peer out of step: the monitor sees it as the end.
			p.conn.Close()
			return
		}
		if w.Ready != nil {
			p.ready.Store(w.Ready)
		}
		select {
		case p.words <- w:
		case <-p.quit:
		}
	}
}

func (p *Process) write() {
	for range p.wake {
		for {
			p.mu.Lock()
			orders := p.queue
			p.queue = nil
			p.mu.Unlock()
			if len(orders) == 0 {
				break
			}
			for _, q := range orders {
				if _, err := p.quiet.Write(q.line); err != nil {
					p.refuse() // the reader sees the end as well, and Done tells
					return
				}
			}
		}
	}
}

// exitReason says in words how the monitor ended.
func exitReason(st *os.ProcessState, waitErr error) error {
	if st == nil {
		return fmt.Errorf("the monitor: %w", waitErr)
	}
	ws, ok := st.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL:
		return errors.New("the monitor was killed (SIGKILL): by the kernel's timer at its lease's end, by a person, or for want of memory")
	case ok && ws.Signaled():
		return fmt.Errorf("the monitor was ended by %s", signalName(ws.Signal()))
	case st.ExitCode() != 0:
		return fmt.Errorf("the monitor ended with exit status %d; its last words are in the agent's log", st.ExitCode())
	case waitErr != nil && !strings.Contains(waitErr.Error(), "exit status"):
		return fmt.Errorf("the monitor: %w", waitErr)
	}
	return nil
}
