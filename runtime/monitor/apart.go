package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/internal/ownpages"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/address"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// A resource with separate_monitor has a monitor process of its own, which the
// node's monitor starts and talks to as the agent does to it: the same program,
// loop, lease and orders, for one resource. It has a dead man's timer of its own,
// and dies with the node's monitor (PDEATHSIG), never the other way round: when it
// dies, its resource has failed, and nothing else has.
//
// The node's lock and its record on disk stay with the node's monitor; what has to
// be kept there, the separate one asks it to keep (RecordWord).

// Apart is what a separate monitor is told by its first order.
type Apart struct {
	Token  string `json:"token"`            // the node's monitor's: what is left of either is found by it
	Cgroup string `json:"cgroup,omitempty"` // the node's monitor's as well
}

// RecordWord is a separate monitor's wish: exactly one field but ID is set.
type RecordWord struct {
	ID     uint64            `json:"id"`
	Adding *address.Left     `json:"adding,omitempty"`
	Undo   *resource.Program `json:"undo,omitempty"`
	Undone uint64            `json:"undone,omitempty"`
}

// RecordedOrder is the answer: it is on disk, or an error.
type RecordedOrder struct {
	ID    uint64 `json:"id"`
	Undo  uint64 `json:"undo,omitempty"` // the number to say in Undone
	Error string `json:"error,omitempty"`
}

// ledger is where a host keeps what must outlive it: the record, or a separate
// monitor's way to it.
type ledger interface {
	adding(address.Left) error
	undo(resource.Program) (uint64, error)
	undone(uint64) error
}

// remoteLedger asks the node's monitor.
type remoteLedger struct {
	out     *speaker
	asks    chan RecordWord
	answers chan RecordedOrder
}

func newRemoteLedger(out *speaker) *remoteLedger {
	return &remoteLedger{out: out, asks: make(chan RecordWord, 1), answers: make(chan RecordedOrder, 1)}
}

// ask waits for the answer, one ask at a time. When the node's monitor dies, so
// does this process.
func (l *remoteLedger) ask(w RecordWord) (RecordedOrder, error) {
	l.asks <- w
	l.out.say(Word{Record: &w})
	a := <-l.answers
	<-l.asks
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (l *remoteLedger) adding(d address.Left) error {
	_, err := l.ask(RecordWord{Adding: &d})
	return err
}

func (l *remoteLedger) undo(p resource.Program) (uint64, error) {
	a, err := l.ask(RecordWord{Undo: &p})
	return a.Undo, err
}

func (l *remoteLedger) undone(id uint64) error {
	_, err := l.ask(RecordWord{Undone: id})
	return err
}

// keep does what a separate monitor asks for.
func (r *record) keep(w RecordWord) RecordedOrder {
	a := RecordedOrder{ID: w.ID}
	var err error
	switch {
	case w.Adding != nil:
		err = r.adding(*w.Adding)
	case w.Undo != nil:
		a.Undo, err = r.undo(*w.Undo)
	case w.Undone != 0:
		err = r.undone(w.Undone)
	default:
		err = errors.New("the node's monitor doesn't know what to keep")
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// apart is a separate monitor, as the node's monitor sees it.
type apart struct {
	child *child
	conn  net.Conn
	words chan Word // closed when it takes no more part
}

// startApart starts a separate monitor and gives it its first order.
func (m *monitor) startApart(name string) (*apart, error) {
	mine, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		return nil, err
	}
	monitor := fmt.Sprint(os.Getpid())
	ch, err := m.host.kids.start(m.host.program,
		func(int) []string { return []string{"clusterplan", "monitor", apartArg, name, monitor} },
		&syscall.ProcAttr{
			Dir:   "/",
			Env:   append(os.Environ(), tokenVariable+"="+m.record.token),
			Files: []uintptr{0, 1, 2, theirs.Fd(), m.memory.Fd()},
			Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL},
		})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("its monitor: %w", err)
	}
	a := &apart{child: ch, conn: conn, words: make(chan Word)}
	conf := m.conf
	conf.Fences = Fences{} // this monitor undoes
	conf.Apart = &Apart{Token: m.record.token, Cgroup: m.host.cgroups.dir}
	if err := a.send(Order{Configure: &conf}); err != nil {
		a.end(m.host)
		return nil, fmt.Errorf("its monitor: %w", err)
	}
	return a, nil
}

// apartArg is the argument that makes a monitor a separate one; its resource's
// name, for people, and the process id of who started it follow.
const apartArg = "apart"

// send gives an order. A separate monitor that takes none is killed, or kills
// itself, in time.
func (a *apart) send(o Order) error {
	line, err := encodeLine(o)
	if err != nil {
		return err
	}
	_ = a.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err = a.conn.Write(line)
	return err
}

// read reads its words until it ends, or until done.
func (a *apart) read(done <-chan struct{}) {
	defer close(a.words)
	in := newLineReader(a.conn)
	for {
		var w Word
		err := in.read(&w)
		if errors.Is(err, errLine) {
			continue
		}
		if err != nil {
			return
		}
		select {
		case a.words <- w:
		case <-done:
			return
		}
	}
}

// end hangs up, and returns when the process, and all that it leaves behind, is
// gone.
func (a *apart) end(h *host) {
	kids := h.kids
	a.conn.Close()
	select {
	case <-a.child.ended:
	case <-time.After(killPatience):
		kids.signal(a.child, unix.SIGKILL)
		<-a.child.ended
	}
	tell := func(since time.Duration) {
		h.say(LogWord{Level: "error", Text: "processes that a separate monitor left behind can't be killed yet", Args: map[string]any{"since": since.Round(time.Second).String()}})
	}
	kids.sweep(tell) // its guardians first, which can't act on its death any more
	for _, dir := range h.cgroups.of(a.child.pid) {
		cgroup.Empty(dir, tell)
		dropCgroup(dir)
	}
}

// runApart lives one life of a resource in a monitor of its own, as run does in
// this one.
func (m *monitor) runApart(stop, kill context.Context, in *instance, start Start) {
	say := func(r report) {
		r.in = in
		m.reports <- r
	}
	err := m.record.see(in.ref.Group, in.ref.Epoch)
	var a *apart
	if err == nil && stop.Err() == nil {
		a, err = m.startApart(start.GroupName + "/" + start.Resource.Name)
	}
	if a == nil {
		if err != nil && stop.Err() == nil {
			say(report{state: spec.StateFailed, reason: err.Error()})
		}
		say(report{gone: true})
		return
	}
	done := make(chan struct{})
	go a.read(done)
	var owed []undo // what a script that is on there has to run: this monitor does, when that one died before
	failed := false
	fail := func(why string) {
		if !failed && stop.Err() == nil {
			say(report{state: spec.StateFailed, reason: why})
		}
		failed = true
	}
	stopping, killing := stop.Done(), kill.Done()
	for down := false; !down; {
		select {
		case <-stopping:
			stopping = nil
			_ = a.send(Order{Stop: &in.ref})
		case <-in.look:
			_ = a.send(Order{Renew: new(spec.Instant)}) // the end itself it reads
		case <-killing:
			// Its guardians kill what it hosts, and the kernel removes its addresses.
			killing = nil
			m.host.kids.signal(a.child, unix.SIGKILL)
		case w, ok := <-a.words:
			switch {
			case !ok:
				<-a.child.ended
				fail("its monitor died: " + endOf(a.child.status))
				down = true
			case w.Ready != nil:
				start.Resource.SeparateMonitor = false // it is there
				_ = a.send(Order{Start: &start})
			case w.Record != nil:
				answer := m.record.keep(*w.Record)
				switch {
				case answer.Error != "":
				case w.Record.Undo != nil:
					owed = append(owed, undo{ID: answer.Undo, Program: *w.Record.Undo})
				case w.Record.Undone != 0:
					owed = slices.DeleteFunc(owed, func(u undo) bool { return u.ID == w.Record.Undone })
				}
				_ = a.send(Order{Recorded: &answer})
			case w.Log != nil:
				m.out.say(w)
			case w.Changed != nil && w.Changed.State == spec.StateFailed:
				fail(w.Changed.Reason)
				_ = a.send(Order{Stop: &in.ref}) // so that it says when nothing is left
			case w.Changed != nil && w.Changed.State == spec.StateOffline:
				down = true
				if stop.Err() == nil {
					fail("its monitor stopped it unasked: its lease has ended")
				}
			case w.Changed != nil && w.Changed.State == spec.StateOfflinePending:
				if w.Changed.Reason != "" { // its stop has failed
					say(report{state: w.Changed.State, reason: w.Changed.Reason})
				}
			case w.Changed != nil && stop.Err() == nil:
				say(report{state: w.Changed.State, reason: w.Changed.Reason})
			}
		}
	}
	close(done)
	a.end(m.host)
	for _, u := range slices.Backward(owed) {
		resource.StopUntilWell(m.host, u.Program.Name, func() error { return m.undoOne(u) },
			func(err error) { say(report{state: spec.StateOfflinePending, reason: err.Error()}) })
	}
	say(report{gone: true})
}

// tellApart has the separate monitors look at the lease. Like this one they do so
// by themselves before it ends; only of a shorter one they have to hear.
func (m *monitor) tellApart() {
	for _, g := range m.groups {
		for _, in := range g.live {
			if in.look == nil {
				continue
			}
			select {
			case in.look <- struct{}{}:
			default: // it is about to
			}
		}
	}
}

// endOf says how a process ended.
func endOf(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "ended by " + signalName(ws.Signal())
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// prepareApart is a separate monitor's preparation: the node's monitor has done
// what prepare does.
func (m *monitor) prepareApart(a Apart) error {
	m.record = &record{token: a.Token, data: recordData{Epochs: map[string]uint64{}}}
	m.remote = newRemoteLedger(m.out)
	m.host.record, m.host.ledger = m.record, m.remote
	m.host.cgroups.dir = a.Cgroup
	Trim()
	_ = ownpages.Lock() // what isn't allowed, the node's monitor has told
	return nil
}
