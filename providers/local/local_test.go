package local

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/providertest"
)

// The test's own program is the agent that is installed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			os.Exit(providertest.Agent(os.Args[3]))
		case "leftover":
			leftover(os.Getenv(marker))
		}
	}
	os.Exit(m.Run())
}

// leftover runs until it is killed; with a file "ends" in its node's directory it
// ends once it is told to go on.
func leftover(dir string) {
	on := make(chan os.Signal, 1)
	signal.Notify(on, syscall.SIGCONT)
	_ = os.WriteFile(filepath.Join(dir, "hears"), nil, 0o600)
	for range on {
		if _, err := os.Stat(filepath.Join(dir, "ends")); err == nil {
			_ = os.WriteFile(filepath.Join(dir, "woken"), nil, 0o600)
			os.Exit(0)
		}
	}
}

// world is a definition's directory with a cluster in memory.
type world struct {
	dir      string
	program  string
	identity *pki.Identity
	cluster  *providertest.Cluster
	nodes    *providers.Directory
}

func newWorld(t *testing.T) *world {
	t.Helper()
	identity, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: filepath.Join(t.TempDir(), ".clusterplan"), program: program, identity: identity,
		cluster: &providertest.Cluster{}, nodes: &providers.Directory{}}
	t.Cleanup(func() { // a test that fails half way leaves no agents
		h := &host{root: resolve(w.dir), orphanWait: time.Millisecond, lab: Lab(w.dir)}
		names, _ := h.Files().List(context.Background(), providers.NodesDir)
		for _, n := range names {
			if err := h.Stop(context.Background(), providers.NodesDir+"/"+n, time.Second); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func (w *world) provider(t *testing.T, change func(*providers.NodesConfig)) *providers.Nodes {
	t.Helper()
	cfg := nodesConfig()
	if change != nil {
		change(&cfg)
	}
	p := providers.NewNodes(cfg)
	err := p.Configure(cty.NilVal, providers.Env{DataDir: w.dir, Program: w.program, Version: "1.2.3",
		Identity: func() *pki.Identity { return w.identity }, Cluster: w.cluster, Nodes: w.nodes})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func nodeValue(name string, set map[string]cty.Value) cty.Value {
	all := map[string]cty.Value{"name": cty.StringVal(name), "provider": cty.StringVal("local")}
	for k, v := range set {
		all[k] = v
	}
	return providertest.Default(spec.NodeSchema(), all)
}

// node is one node of a world, by steps.
type node struct {
	t      *testing.T
	p      *providers.Nodes
	name   string
	id     string
	config cty.Value
	prior  *providers.Object
	back   bool // the phases to come have it come back as it is
}

func (n *node) addr() addr.Address { return addr.Node(n.name, addr.NoKey) }

func (n *node) plan() providers.PlanResponse {
	n.t.Helper()
	res, err := n.p.Plan(providers.PlanRequest{Addr: n.addr(), Type: "node", Prior: n.prior, Config: n.config})
	if err != nil {
		n.t.Fatal(err)
	}
	return res
}

func (n *node) phase(phase string) error {
	plan := providers.PlanResponse{Planned: cty.NilVal}
	if n.config != cty.NilVal {
		plan = n.plan()
	}
	res, err := n.p.Apply(n.t.Context(), providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: phase, Prior: n.prior, Planned: plan.Planned, ComesBack: n.back})
	if err == nil {
		n.prior = res.Object
	}
	return err
}

func (n *node) phases(phases ...string) {
	n.t.Helper()
	for _, phase := range phases {
		if err := n.phase(phase); err != nil {
			n.t.Fatalf("%s: %v", phase, err)
		}
	}
}

func (n *node) read() []string {
	n.t.Helper()
	res, err := n.p.Read(n.t.Context(), providers.ReadRequest{Addr: n.addr(), Type: "node", ID: n.id, Prior: n.prior})
	if err != nil {
		n.t.Fatal(err)
	}
	if res.Object == nil {
		n.prior = nil
		return nil
	}
	n.prior = res.Object
	return res.Object.Health
}

func newNode(t *testing.T, p *providers.Nodes, name string, set map[string]cty.Value) *node {
	return &node{t: t, p: p, name: name, id: pki.NewID(), config: nodeValue(name, set)}
}

var create = []string{providers.PhaseInstall, providers.PhaseStart, providers.PhaseJoin, providers.PhasePromote}

func TestConformance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	providertest.Run(t, providertest.Object{
		New:    func(t *testing.T) providers.Provider { return w.provider(t, nil) },
		Addr:   addr.Node("n1", addr.NoKey),
		Type:   addr.TypeNode,
		ID:     pki.NewID(),
		Create: nodeValue("n1", nil),
		Update: nodeValue("n1", map[string]cty.Value{"zone": cty.StringVal("east"), "address": cty.StringVal("127.0.0.1:" + freePort(t))}),
	})
	want := []string{"join n1", "promote n1", "drain n1", "update n1", "resume n1", "drain n1", "leave n1"}
	if got := w.cluster.Calls(); !slices.Equal(got, want) {
		t.Errorf("the cluster was asked %q, want %q", got, want)
	}
	left, err := filepath.Glob(filepath.Join(w.dir, "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %q, %v", left, err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// What may have happened to a node since it was made, what Read says of it,
// what the plan does about it, and that nothing is left to do after.
func TestDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	dirOf := func(n *node) string { return filepath.Join(resolve(w.dir), "nodes", n.name) }
	pidOf := func(n *node) int {
		pid, err := (&host{root: resolve(w.dir)}).Alive(t.Context(), "nodes/"+n.name)
		if err != nil || pid == 0 {
			t.Fatalf("agent of %s: pid %d, %v", n.name, pid, err)
		}
		return pid
	}
	kill := func(n *node) {
		proc, ok := look(pidOf(n))
		if !ok {
			t.Fatal("no process")
		}
		send(t, proc.pid, syscall.SIGKILL)
	}
	write := func(name, text string) func(n *node) {
		return func(n *node) {
			if err := os.WriteFile(filepath.Join(dirOf(n), name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		change func(n *node)
		health []string
		phases string
	}{
		{"killed", kill, []string{"agent not running"}, "start"},
		{"directory gone", func(n *node) {
			kill(n)
			if err := os.RemoveAll(dirOf(n)); err != nil {
				t.Fatal(err)
			}
		}, []string{"directory gone"}, "install start join promote"},
		{"directory gone under its agent", func(n *node) {
			if err := os.RemoveAll(dirOf(n)); err != nil {
				t.Fatal(err)
			}
		}, []string{"directory gone", "agent runs without its directory"}, "stop install start join promote"},
		{"data emptied", func(n *node) {
			kill(n)
			if err := os.RemoveAll(filepath.Join(dirOf(n), "data")); err != nil {
				t.Fatal(err)
			}
			n.phases("start")
		}, []string{"a new data directory, not the one that joined"}, "join promote"},
		// As a roll leaves it that was killed before its join.
		{"data emptied, and left drained", func(n *node) {
			if err := w.cluster.Drain(t.Context(), n.id, ""); err != nil {
				t.Fatal(err)
			}
			n.phases("stop")
			if err := os.RemoveAll(filepath.Join(dirOf(n), "data")); err != nil {
				t.Fatal(err)
			}
			n.phases("start")
		}, []string{"a new data directory, not the one that joined", "still drained by an earlier apply"}, "join promote resume"},
		{"data gone", func(n *node) {
			kill(n)
			if err := os.RemoveAll(filepath.Join(dirOf(n), "data")); err != nil {
				t.Fatal(err)
			}
		}, []string{"agent not running", "data directory gone"}, "start join promote"},
		// Its agent has what it knew in its memory: it serves, and forgets all when it ends.
		{"data gone under its agent", func(n *node) {
			if err := os.RemoveAll(filepath.Join(dirOf(n), "data")); err != nil {
				t.Fatal(err)
			}
		}, []string{"data directory gone"}, "drain stop start join promote resume"},
		{"no member any more", func(n *node) {
			if err := w.cluster.Leave(t.Context(), n.id); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a member"}, "join promote"},
		{"left drained", func(n *node) {
			if err := w.cluster.Drain(t.Context(), n.id, ""); err != nil {
				t.Fatal(err)
			}
		}, []string{"still drained by an earlier apply"}, "resume"},
		{"configuration edited", write("agent.json", `{"cluster_id":"x"}`), []string{"agent.json differs"}, "drain stop install start resume"},
		{"configuration damaged", write("agent.json", `{`), []string{"agent.json differs"}, "drain stop install start resume"},
		{"key of the frames replaced", write("cluster.key", "nonsense"), []string{"cluster key or authority differs"}, "drain stop install start resume"},
		{"certificate gone", func(n *node) {
			if err := os.Remove(filepath.Join(dirOf(n), "node.crt")); err != nil {
				t.Fatal(err)
			}
		}, []string{"certificate missing"}, "install"},
		{"certificate almost over", func(n *node) { mint(t, w, n, dirOf(n), 2*time.Minute) },
			[]string{"certificate expires in 1 day"}, "install"},
		// Nothing is stopped for it: the agent takes the new one as it runs.
		{"certificate expired", func(n *node) { mint(t, w, n, dirOf(n), -time.Minute) },
			[]string{"certificate expired"}, "install"},
		{"certificate of another", func(n *node) { mint(t, w, &node{id: pki.NewID(), name: "x"}, dirOf(n), time.Hour) },
			[]string{"certificate of another node or cluster"}, "install"},
		{"program replaced", func(n *node) {
			if err := os.Remove(filepath.Join(dirOf(n), "bin", "clusterplan")); err != nil {
				t.Fatal(err)
			}
		}, []string{"agent program differs"}, "drain stop install start resume"},
		{"stopped in its tracks", func(n *node) { send(t, pidOf(n), syscall.SIGSTOP) },
			[]string{"agent does not answer"}, "stop start"},
	}
	n := newNode(t, p, "n1", nil)
	n.phases(create...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.t = t
			if health := n.read(); len(health) > 0 {
				t.Fatalf("before: %q", health)
			}
			tt.change(n)
			if health := n.read(); !slices.Equal(health, tt.health) {
				t.Fatalf("read finds %q, want %q", health, tt.health)
			}
			plan := n.plan()
			if got := strings.Join(plan.Phases, " "); got != tt.phases {
				t.Fatalf("the plan does %q, want %q", got, tt.phases)
			}
			if !slices.Equal(plan.Drift, tt.health) {
				t.Errorf("the plan says %q, want %q", plan.Drift, tt.health)
			}
			n.phases(plan.Phases...)
			if health := n.read(); len(health) > 0 {
				t.Fatalf("after: %q", health)
			}
			if plan := n.plan(); len(plan.Phases) > 0 || !plan.Planned.RawEquals(n.prior.Value) {
				t.Fatalf("a second plan does %q:\n%#v\n%#v", plan.Phases, plan.Planned, n.prior.Value)
			}
		})
	}
}

// An agent whose data directory was removed since the plan was made, which has it come
// back with what it had, is not ended: its memory may be all that there is. A link to a
// disk that isn't there is not a directory that is gone.
func TestDataGoneSincePlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := newNode(t, w.provider(t, nil), "n1", nil)
	n.phases(create...)
	data, away := filepath.Join(resolve(w.dir), "nodes", "n1", "data"), filepath.Join(t.TempDir(), "disk")
	n.back = true
	for _, c := range []struct {
		name string
		lose func() error
	}{
		{"removed", func() error { return os.Rename(data, away) }},
		{"empty", func() error { return os.Mkdir(data, 0o700) }},
		{"its disk not there", func() error { return errors.Join(os.Remove(data), os.Symlink(filepath.Join(away, "none"), data)) }},
	} {
		if err := c.lose(); err != nil {
			t.Fatal(err)
		}
		if err := n.phase(providers.PhaseStop); err == nil || !strings.Contains(err.Error(), "stop node n1: "+data+" is gone, which the plan did not know") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := n.p.Read(t.Context(), providers.ReadRequest{Addr: n.addr(), Type: "node", ID: n.id, Prior: n.prior}); err == nil || !strings.Contains(err.Error(), data+" is a link to what isn't there") {
		t.Errorf("a link to nowhere: %v", err)
	}
	if err := errors.Join(os.Remove(data), os.Rename(away, data)); err != nil {
		t.Fatal(err)
	}

	// Where all of its directory is gone, its agent has the database still: nobody may
	// make a cluster anew beside it.
	if err := os.Rename(filepath.Dir(data), away); err != nil {
		t.Fatal(err)
	}
	holds := func() bool {
		return slices.ContainsFunc(w.nodes.All(), func(e providers.Entry) bool { return e.NodeID == n.id && e.ServerID != 0 })
	}
	if health := n.read(); !slices.Contains(health, providers.HealthHomeless) || !holds() {
		t.Errorf("%q, its agent may hold the database %v", health, holds())
	}
	n.back = false
	n.phases(providers.PhaseStop)
	if n.read(); holds() {
		t.Error("nothing is left of it, and it may hold the database")
	}
}

// A restarted node is resumed, and so counted on, only once it says itself that
// it takes part: the cluster may still go by its former life.
func TestResumeWaitsForTheNewLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	n := newNode(t, p, "n1", nil)
	n.phases(append(slices.Clone(create), "drain", "stop", "start")...)
	alone := filepath.Join(resolve(w.dir), "nodes", "n1", "alone")
	if err := os.WriteFile(alone, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.phase("resume") }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if asked, _ := os.ReadFile(alone); len(asked) > 0 && string(asked) >= "4" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it isn't asked whether it takes part")
		}
	}
	if calls := w.cluster.Calls(); slices.Contains(calls, "resume n1") {
		t.Fatalf("resumed before it takes part: %q", calls)
	}
	if err := os.Remove(alone); err != nil {
		t.Fatal(err)
	}
	// The answer that is under way may write it once more.
	for finished := false; !finished; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			finished = true
		case <-time.After(50 * time.Millisecond):
			_ = os.Remove(alone)
		case <-t.Context().Done():
			t.Fatal("not resumed")
		}
	}
	if calls := w.cluster.Calls(); !slices.Contains(calls, "resume n1") {
		t.Errorf("not resumed: %q", calls)
	}

	p = w.provider(t, func(c *providers.NodesConfig) { c.PartWait = time.Millisecond })
	n.p = p
	n.phases("drain")
	if err := os.WriteFile(alone, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.phase("resume"); err == nil || !strings.Contains(err.Error(), "takes no part") || !strings.Contains(err.Error(), "stays drained") {
		t.Errorf("a node that never takes part: %v", err)
	}
}

func send(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
	if sig == syscall.SIGKILL {
		deadline := time.Now().Add(20 * time.Second)
		for _, ok := look(pid); ok; _, ok = look(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d does not end", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// mint writes a certificate with the given life. One of two minutes is nearly
// over from its begin, which lies some minutes back.
func mint(t *testing.T, w *world, n *node, dir string, life time.Duration) {
	t.Helper()
	c, err := w.identity.NodeCert(n.id, n.name, life)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"node.key": c.Key, "node.crt": c.Cert} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
