package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/internal/ownpages"
	"github.com/clusterplan/clusterplan/runtime/address"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// Main is the monitor's main: the hidden command `clusterplan monitor`, started
// by an agent (StartProcess) with a socket as fd 3 and the lease's memory
// (lease.go) as fd 4. It returns the exit status.
func Main(args []string) int {
	var st unix.Stat_t
	if len(args) == 3 && args[0] == apartArg {
		if args[2] != fmt.Sprint(os.Getppid()) {
			return 1 // it died before the kernel was told to kill us with it
		}
		args = nil
	}
	if err := unix.Fstat(3, &st); len(args) != 0 || err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		fmt.Fprintln(os.Stderr, "clusterplan monitor is started by clusterplan agent")
		return 2
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	board, err := openBoard(4)
	memory := os.NewFile(4, "lease")
	if err == nil {
		file := os.NewFile(3, "agent")
		var conn net.Conn
		conn, err = net.FileConn(file)
		file.Close()
		if err == nil {
			err = serve(conn, board, memory)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clusterplan monitor:", err)
		return 1
	}
	return 0
}

// processors is how many Go's code runs on: an idle second one is woken, and
// looks for work, each time that the first one is.
const processors = 1

// serve is a monitor's life on its connection to the agent.
func serve(conn net.Conn, board *board, memory *os.File) error {
	_ = hurry(true)        // what isn't allowed here, the agent wasn't either, and has told
	debug.SetGCPercent(50) // small, rather than quick
	runtime.GOMAXPROCS(processors)
	stream, err := quiet(conn)
	if err != nil {
		return err
	}
	in := newLineReader(stream)
	var first Order
	if err := in.read(&first); err != nil {
		return fmt.Errorf("the agent's first order: %w", err)
	}
	if first.Configure == nil {
		return errors.New("the agent's first order is no configure")
	}
	conf := *first.Configure

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	quit := make(chan struct{})
	go func() {
		<-signals
		close(quit)
	}()

	kids, err := newChildren()
	if err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	deadman, err := newDeadman()
	if err != nil {
		return err
	}
	timer, err := boottime.NewTimer()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = timer.Run(ctx) }() // a timer that can't be read goes off no more: the kernel's does
	go kids.runStarts()
	go kids.runReaps()

	out := newSpeaker(stream)
	go out.run()
	ready := make(chan error, 1)
	orders := make(chan Order, 16)
	m := &monitor{
		conf:     conf,
		board:    board,
		memory:   memory,
		deadman:  deadman,
		timer:    timer,
		out:      out,
		orders:   orders,
		ready:    ready,
		quit:     quit,
		reports:  make(chan report),
		groups:   map[string]*group{},
		refenced: make(chan struct{}, 1),
		host:     &host{kids: kids, addrs: address.New(out.log), program: ownProgram(conf.Program), say: func(w LogWord) { out.say(Word{Log: &w}) }},
	}
	m.fences.Store(&conf.Fences)
	go m.listen(in, orders)
	go func() {
		if conf.Apart != nil {
			ready <- m.prepareApart(*conf.Apart)
		} else {
			ready <- m.prepare()
		}
	}()
	err = m.loop()
	if err != nil {
		out.log("error", "the monitor ends: "+err.Error(), nil)
	} else {
		m.endWatchdog()
	}
	out.finish(time.Second)
	return err
}

// listen reads the agent's orders; the channel closes with its socket.
func (m *monitor) listen(in *lineReader, orders chan<- Order) {
	defer close(orders)
	for {
		var o Order
		err := in.read(&o)
		if errors.Is(err, errLine) {
			m.out.log("warn", "an order was left out", map[string]any{"err": err.Error()})
			continue
		}
		if err != nil {
			return
		}
		orders <- o
	}
}

// prepare takes the node's lock, and sees to it that nothing of an earlier
// monitor is left. The loop uses the record only after it has returned.
func (m *monitor) prepare() error {
	dir := filepath.Join(m.conf.Dir, "run")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the node's run directory: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	lockName, recordName := m.conf.files()
	lock, err := takeLock(filepath.Join(dir, lockName), func(holder string) {
		go m.tellWaiting(holder, done)
	})
	if err != nil {
		return err
	}
	m.lock = lock
	record, damage, err := openRecord(filepath.Join(dir, recordName))
	if err != nil {
		return err
	}
	if damage != nil {
		m.out.log("error", "what an earlier monitor left is not known", map[string]any{"err": damage.Error()})
	}
	killed := cleanUp(record, func(pids []int) {
		m.out.log("error", "processes of an earlier monitor can't be killed yet", map[string]any{"pids": fmt.Sprint(pids)})
		m.out.say(Word{Stuck: fmt.Sprintf("processes %v", pids), Waits: fmt.Sprintf("processes %v of an earlier monitor can't be killed yet", pids)})
	})
	if killed > 0 {
		m.out.log("warn", "killed what an earlier monitor had left", map[string]any{"processes": killed})
	}
	for _, dir := range record.cgroups() {
		cgroup.Empty(dir, func(since time.Duration) {
			m.out.log("error", "processes of an earlier monitor can't be killed yet", map[string]any{"cgroup": dir, "since": since.Round(time.Second).String()})
			m.out.say(Word{Stuck: "processes in " + dir, Waits: "processes of an earlier monitor in " + dir + " can't be killed yet"})
		})
	}
	removed, err := address.CleanUp(record.devices())
	if len(removed) > 0 {
		m.out.log("warn", "removed what an earlier monitor had left in the network", map[string]any{"devices": fmt.Sprint(removed)})
	}
	if err != nil {
		return err // its addresses may be elsewhere by now
	}
	cgroup, noCgroup := cgroupDir(record.token)
	if err := record.cleaned(cgroup); err != nil {
		return err
	}
	if noCgroup == nil {
		noCgroup = m.host.cgroups.use(cgroup)
	}
	if noCgroup != nil {
		m.out.log("info", "no cgroup v2 to hold programs: guardians alone do", map[string]any{"err": noCgroup.Error()})
	}
	m.record, m.host.record, m.host.ledger = record, record, record
	m.undo()
	m.armWatchdog() // only now: opening it feeds it
	Trim()
	if err := ownpages.Lock(); err != nil {
		m.out.log("debug", "the monitor's program may be dropped from memory when memory is short", map[string]any{"err": err.Error()})
	}
	return nil
}

// Undoing is tried so often, each time for so long (or for its stop_timeout, where that
// is longer). What can't be undone stays in the record, for the next monitor: a node
// must not be lost for it. Where there is a watchdog, or a fence covers the node, it is
// tried for good, ever more seldom, and the monitor is not ready before: others rely on
// its reset, or on its being turned off, and a ready node releases groups. No fence comes
// for a group that nobody waits for (Fences.Alone), which so loses no node.
const (
	undoTries   = 3
	undoTimeout = 30 * time.Second
)

// undo runs the stop commands of scripts that an earlier monitor left on.
func (m *monitor) undo() {
	for _, u := range m.record.toUndo() {
		pause := undoPause
		for try := 1; ; try++ {
			err := m.undoOne(u)
			if err == nil {
				m.out.log("warn", "ran the stop command of what an earlier monitor had left", map[string]any{"resource": u.Program.Name})
				break
			}
			fences := m.fences.Load()
			forGood := (m.conf.Watchdog != "" || fences.Covered && !slices.Contains(fences.Alone, u.Program.Name)) && !m.record.rebooted
			args := map[string]any{"resource": u.Program.Name, "err": err.Error(), "try": try}
			if !forGood {
				args["of"] = undoTries
			}
			m.out.log("error", "what an earlier monitor left can't be stopped", args)
			m.out.say(Word{Waits: fmt.Sprintf("%s, which an earlier monitor left on, can't be stopped: %s", u.Program.Name, err)})
			if try >= undoTries {
				if !forGood {
					break
				}
				select {
				case <-m.refenced:
				case <-time.After(pause):
					pause = min(2*pause, undoPauseMost)
				}
			}
		}
	}
}

// undoOne runs one of them, which then is owed no more.
func (m *monitor) undoOne(u undo) error {
	within := undoWithin(u.Program)
	ctx, cancel := context.WithTimeoutCause(context.Background(), within, fmt.Errorf("not ended after %s", within))
	defer cancel()
	if err := m.host.Run(ctx, u.Program); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	return m.record.undone(u.ID)
}

// undoWithin is how long one try of p may take: no less than its stop_timeout.
func undoWithin(p resource.Program) time.Duration { return max(undoTimeout, p.Within) }

// undoPause is between two tries after the first ones, and then twice as long each time.
const (
	undoPause     = time.Second
	undoPauseMost = 10 * time.Second
)

// tellWaiting says, ever more seldom, that an earlier monitor still lives.
func (m *monitor) tellWaiting(holder string, done <-chan struct{}) {
	wait := time.Second
	for {
		m.out.log("info", "waiting for the node's lock: an earlier monitor still lives", map[string]any{"pid": holder})
		m.out.say(Word{Waits: fmt.Sprintf("an earlier monitor (pid %s) still lives", holder)})
		select {
		case <-done:
			return
		case <-time.After(wait):
		}
		wait = min(wait*2, time.Minute)
	}
}
