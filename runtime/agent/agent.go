// Package agent is the node's process: it wires the pure member (core, driver
// and frames; runtime/member) to sockets, disk, clock and the monitor process.
//
// The member is stepped by one goroutine at a time, whose turn it is. What happens
// reaches the loop's as a job on one channel, in order: messages from TLS streams,
// words of the monitor, requests of the API, and what the store made durable. What
// an idle node does all the time, the poller wakes a goroutine for, and that takes
// its turn itself: the UDP reader with each frame, and one boot-clock timer. What the
// member wants done leaves by the same goroutine at once and never blocks it: frames
// by a UDP socket, messages, writes and orders by queues. So a lease never waits for
// a disk, a slow peer or a request.
//
// It decides nothing about the cluster; that is the member's. It never starts a
// resource either; that is the monitor's. Start reading at Run, then Node.loop.
package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/runtime/confdb/store"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// Config says which node to run.
type Config struct {
	// Dir is the node's directory (agent.json, certificates, data, run, log).
	Dir string
	// Log is where the agent tells what it does; default: text on stderr.
	Log *slog.Logger
	// API makes the handler of the node's API (runtime/api.Handler); nil: none is served.
	API func(*Node) http.Handler
	// Version is this program's; default: the one agent.json names.
	Version string
	// Program is the file that monitors are started from; default: this program's.
	Program string
	// MonitorArgs are the monitor's arguments; default: "monitor".
	MonitorArgs []string
	// MonitorEnv is the monitor's environment; default: this process's.
	MonitorEnv []string
	// Addresses are this host's IP addresses, of which those on the cluster's
	// links are found; default: its interfaces'. For tests with several nodes on
	// one host.
	Addresses func() ([]netip.Addr, error)
	// SysrqTrigger is what the kernel is asked for a reset by; default:
	// /proc/sysrq-trigger. For tests.
	SysrqTrigger string
	// Embedded leaves the process alone (priority, memory limits): for tests
	// that run several agents in one process.
	Embedded bool
	// StopWithin bounds an orderly end once ctx is done; default 30 s. Where what runs
	// may take longer to stop, by its stop timeouts, that and 10 s bound it.
	StopWithin time.Duration
	// Ready, where set, is called once the node listens.
	Ready func(*Node)

	systemd systemd
}

// ErrStopping answers requests to an agent that ends.
var ErrStopping = errors.New("the agent is stopping")

// Run runs the node until ctx ends, then has it stop its groups, release them,
// and hand leadership over. It returns nil after an orderly end; an error that
// says what and where when the node can't start or go on.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if cfg.StopWithin == 0 {
		cfg.StopWithin = 30 * time.Second
	}
	if cfg.Program == "" {
		if cfg.Program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program's file: %w", err)
		}
	}
	lines := newLogQueue(cfg.Log.Handler())
	defer lines.finish(lastLines)
	cfg.Log = slog.New(lines)
	f, err := readFiles(cfg.Dir)
	if err != nil {
		return err
	}
	if cfg.Version == "" {
		cfg.Version = f.conf.Version
	}
	lock, err := lockPID(filepath.Join(f.dir, runDir, pidFile))
	if err != nil {
		return err
	}
	defer lock.Close() // the file stays: whose pid it names is told by the lock alone
	if !cfg.Embedded {
		cfg.systemd = takeSystemd()
		tune(cfg.Log)
	}
	defer context.AfterFunc(ctx, func() { _ = cfg.systemd.tell("STOPPING=1") })()
	for {
		if err = life(ctx, cfg, f); !errors.Is(err, errStore) || ctx.Err() != nil || errors.Is(err, store.ErrDamaged) {
			return err
		}
		if !awaitDisk(ctx, cfg, f.dir, err) {
			return nil // nothing runs here
		}
	}
}

// life runs the node over its store, from the opening to the end.
func life(ctx context.Context, cfg Config, f *files) (err error) {
	st, err := store.Open(filepath.Join(f.dir, dataDir))
	if err != nil {
		return fmt.Errorf("open the node's database: %w", err)
	}
	defer func() {
		if cerr := st.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("close the node's database: %w", cerr)
		}
	}()
	n, err := newNode(cfg, f, st)
	if err != nil {
		return err
	}
	return n.run(ctx)
}

// run owns the node's goroutines from the listeners to the last.
func (n *Node) run(ctx context.Context) error {
	defer n.openReset()()
	front, err := n.listen()
	if err != nil {
		return err
	}
	defer front.close()
	n.udp = front.udp
	timer, err := boottime.NewTimer()
	if err != nil {
		return err
	}
	n.timer = timer

	// life ends when the loop has ended: nothing else may end before it, so that
	// the last releases and replies still leave.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, life := errgroup.WithContext(life)
	n.spawn = g.Go
	n.start = func(s *seat) {
		s.on = true
		g.Go(func() error { return n.supervise(life, s) })
	}
	g.Go(func() error { return n.write(life) })
	n.begin(life)
	n.start(&n.monitor)
	if n.hadFreezer {
		n.start(&n.freezer)
	}
	if !n.cfg.Embedded {
		g.Go(func() error { trim(life); return nil })
	}
	g.Go(func() error { return n.peers.run(life) })
	g.Go(func() error { n.watchCertificate(life); return nil })
	g.Go(func() error { return n.fences.run(life) })
	g.Go(func() error { return front.serve(life, n) })
	g.Go(func() error { return n.apps.run(life, n) })
	g.Go(func() error {
		defer end()
		return n.loop(ctx, life)
	})
	n.log.Info("the agent runs", "node", n.files.conf.Name, "cluster", n.files.conf.Cluster, "address", n.files.conf.Address,
		"version", n.facts.Version, "pid", n.facts.PID, "server_id", n.facts.ServerID)
	if err := n.cfg.systemd.tell("READY=1"); err != nil {
		n.log.Error("systemd takes this agent for one that never starts", "err", err)
	}
	g.Go(func() error {
		if err := n.cfg.systemd.keep(life, func() bool { return n.inLoop(life, func() {}) == nil }); err != nil {
			n.log.Error("systemd hears no signs of life", "err", err)
		}
		return nil
	})
	if n.cfg.Ready != nil {
		n.cfg.Ready(n)
	}
	err = g.Wait()
	n.log.Info("the agent ends", "err", err)
	return err
}

// begin has the member take its first step, with what the store held, and then lets
// ticks and frames in: those may have waited in the socket for long.
func (n *Node) begin(life context.Context) {
	n.turn(func() { n.step(member.Tick{}) })
	n.spawn(func() error { return n.timer.Follow(life, n.tick) })
	n.spawn(func() error { return n.udp.read(life, n.udp.main) })
}

func random64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// Facts are what a node knows of itself without asking its member.
type Facts struct {
	ClusterID    string
	NodeID       string
	Name         string
	ServerID     uint64
	Endpoint     string
	Version      string
	Program      string // sha256 of the running program's file, hex
	CertNotAfter time.Time
	PID          int
	MonitorPID   int // 0: none now
	FreezerPID   int // 0: none now
	LogDir       string
	Trouble      string // why the database can't be written now; "": it can
	NoReset      string // why the node can't reset itself, though it should
	NotReady     string // why its monitor can run no group yet
}

type pid struct{ v atomic.Int64 }

func (p *pid) set(v int) { p.v.Store(int64(v)) }
func (p *pid) get() int  { return int(p.v.Load()) }
