package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
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
			os.Exit(fakeAgent(os.Args[3]))
		case "leftover":
			select {}
		}
	}
	os.Exit(m.Run())
}

// fakeAgent serves GET /v1/self over mutual TLS until SIGTERM. A file "fault"
// in its directory has it do something else.
func fakeAgent(dir string) int {
	fault, _ := os.ReadFile(filepath.Join(dir, "fault"))
	switch string(fault) {
	case "exit":
		fmt.Fprintln(os.Stderr, "the roof is on fire")
		return 3
	case "hang":
		fmt.Fprintln(os.Stderr, "waiting for Godot")
		select {}
	case "leftover": // what a killed agent's monitor may be
		cmd := exec.Command("/proc/self/exe", "leftover")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 1
		}
	}
	die := func(err error) int { fmt.Fprintln(os.Stderr, err); return 1 }
	var conf providers.AgentConfig
	data, err := os.ReadFile(filepath.Join(dir, providers.AgentConfigFile))
	if err != nil {
		return die(err)
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return die(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, providers.CACertFile))
	if err != nil {
		return die(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, providers.NodeCertFile), filepath.Join(dir, providers.NodeKeyFile))
	if err != nil {
		return die(err)
	}
	config, err := pki.ServerConfig(ca, conf.ClusterID, pair, "http/1.1")
	if err != nil {
		return die(err)
	}
	server, err := serverID(filepath.Join(dir, providers.DataDirName))
	if err != nil {
		return die(err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return die(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, exe); err != nil {
		return die(err)
	}
	if err := os.WriteFile(filepath.Join(dir, providers.AgentPIDFile), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		return die(err)
	}
	lis, err := tls.Listen("tcp", conf.Address, config)
	if err != nil {
		return die(err)
	}
	self, err := json.Marshal(providers.Self{ClusterID: conf.ClusterID, NodeID: conf.NodeID, ServerID: server, Membership: "waiting", Program: hex.EncodeToString(h.Sum(nil))})
	if err != nil {
		return die(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go http.Serve(lis, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(self) }))
	<-stop
	return 0
}

func serverID(dir string) (uint64, error) {
	file := filepath.Join(dir, "server-id")
	data, err := os.ReadFile(file)
	if err != nil {
		data = make([]byte, 8)
		rand.Read(data)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return 0, err
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return 0, err
		}
	}
	return binary.LittleEndian.Uint64(data) | 1, nil
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
		h := &host{root: resolve(w.dir), orphanWait: time.Millisecond}
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
	res, err := n.p.Apply(n.t.Context(), providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: phase, Prior: n.prior, Planned: plan.Planned})
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

// What can go wrong when an agent is installed or started: each is told with
// what, where and why.
func TestFaults(t *testing.T) {
	w := newWorld(t)
	p := w.provider(t, func(c *providers.NodesConfig) { c.StartWait = 500 * time.Millisecond })
	dir := filepath.Join(resolve(w.dir), "nodes")
	fault := func(n *node, text string) {
		if err := os.WriteFile(filepath.Join(dir, n.name, "fault"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(t *testing.T, err error, words ...string) {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
	t.Run("ends at once", func(t *testing.T) {
		n := newNode(t, p, "exit", nil)
		n.phases(providers.PhaseInstall)
		fault(n, "exit")
		wants(t, n.phase(providers.PhaseStart), "start node exit", "ended at once", "the roof is on fire", "log/agent.log")
		fault(n, "")
		n.phases(providers.PhaseStart) // and then it goes on
	})
	t.Run("never answers", func(t *testing.T) {
		n := newNode(t, p, "hang", nil)
		n.phases(providers.PhaseInstall)
		fault(n, "hang")
		wants(t, n.phase(providers.PhaseStart), "does not answer at 127.0.0.1:", "waiting for Godot", "log/agent.log")
		n.phases(providers.PhaseStop)
	})
	t.Run("no program", func(t *testing.T) {
		n := newNode(t, p, "noexec", nil)
		n.phases(providers.PhaseInstall)
		link := filepath.Join(dir, "noexec", "bin", "clusterplan")
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte("\x7fELF and no more"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(bad, link); err != nil {
			t.Fatal(err)
		}
		wants(t, n.phase(providers.PhaseStart), "start node noexec", "can't be executed", "exec format error", link)
	})
	t.Run("port taken", func(t *testing.T) {
		l, err := net.ListenPacket("udp", "127.0.0.1:0") // UDP alone is enough
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := newNode(t, p, "port", map[string]cty.Value{"address": cty.StringVal(l.LocalAddr().String())})
		n.phases(providers.PhaseInstall)
		wants(t, n.phase(providers.PhaseStart), "start node port", "port is taken", l.LocalAddr().String())
	})
	t.Run("no address of this machine", func(t *testing.T) {
		n := newNode(t, p, "far", map[string]cty.Value{"address": cty.StringVal("192.0.2.1")})
		wants(t, n.phase(providers.PhaseInstall), "192.0.2.1", "can't be listened on")
	})
	t.Run("directory of another node", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Join(dir, "other"), 0o700); err != nil {
			t.Fatal(err)
		}
		text := `{"cluster_id":"c0ffee","cluster":"old","node_id":"deadbeef","name":"other","address":"127.0.0.1:1"}`
		if err := os.WriteFile(filepath.Join(dir, "other", "agent.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, p, "other", nil)
		wants(t, n.phase(providers.PhaseInstall), "belongs to another node", filepath.Join(dir, "other"), "deadbeef")
		n.read()
		if n.prior != nil {
			t.Errorf("read finds %+v", n.prior)
		}
		n.config = cty.NilVal
		n.phases(providers.PhaseStop, providers.PhaseRemove)
		if _, err := os.Stat(filepath.Join(dir, "other", "agent.json")); err != nil {
			t.Errorf("the other node's directory was touched: %v", err)
		}
	})
	t.Run("half installed", func(t *testing.T) {
		n := newNode(t, p, "half", nil)
		n.phases(providers.PhaseInstall)
		for _, name := range []string{"node.crt", "cluster.key", "bin/clusterplan"} {
			if err := os.Remove(filepath.Join(dir, "half", name)); err != nil {
				t.Fatal(err)
			}
		}
		n.prior = nil // the apply died before it could write down what it had done
		n.phases(create...)
		if health := n.read(); len(health) > 0 {
			t.Errorf("after: %q", health)
		}
	})
}

// A killed agent's leftovers are found and ended, and a node can be removed
// when its cluster is dead.
func TestStopLeavesNothing(t *testing.T) {
	w := newWorld(t)
	p := w.provider(t, nil)
	n := newNode(t, p, "n1", nil)
	n.phases(providers.PhaseInstall)
	if err := os.WriteFile(filepath.Join(w.dir, "nodes", "n1", "fault"), []byte("leftover"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.phases(providers.PhaseStart, providers.PhaseJoin)
	w.cluster.Err = fmt.Errorf("%w: all dead", providers.ErrNoQuorum)
	if health := n.read(); len(health) > 0 {
		t.Errorf("what can't be asked is no finding: %q", health)
	}
	abs := filepath.Join(resolve(w.dir), "nodes", "n1")
	if all, err := processesOf(abs); err != nil || len(all) != 2 {
		t.Fatalf("processes: %+v, %v; want the agent and what it started", all, err)
	}
	h := &host{root: resolve(w.dir), orphanWait: 50 * time.Millisecond}
	if err := h.Stop(t.Context(), "nodes/n1", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if all, err := processesOf(abs); err != nil || len(all) > 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	n.config = cty.NilVal
	n.phases(providers.PhaseStop, providers.PhaseRemove)
	if entries, _ := os.ReadDir(filepath.Join(w.dir, "nodes")); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

// Nodes are renamed without a restart, and keep their directory and port; a
// new one may then have the old name.
func TestRename(t *testing.T) {
	w := newWorld(t)
	p := w.provider(t, nil)
	n := newNode(t, p, "old", nil)
	n.phases(create...)
	endpoint := n.prior.Value.GetAttr("endpoint").AsString()
	n.config = nodeValue("new", nil)
	plan := n.plan()
	if got := strings.Join(plan.Phases, " "); got != "install update" || plan.Impact != spec.ImpactNone {
		t.Fatalf("the plan does %q (%s)", got, plan.Impact)
	}
	n.phases(plan.Phases...)
	if health := n.read(); len(health) > 0 {
		t.Fatalf("after: %q", health)
	}
	if got := n.prior.Value.GetAttr("endpoint").AsString(); got != endpoint {
		t.Errorf("its endpoint was %s and is %s", endpoint, got)
	}
	second := newNode(t, p, "old", nil)
	second.phases(create...)
	if second.prior.Value.GetAttr("endpoint").AsString() == endpoint {
		t.Error("two nodes have one endpoint")
	}
	if health := n.read(); len(health) > 0 {
		t.Fatalf("after the second: %q", health)
	}
}

// An instance key may hold anything; the node's directory stays where nodes are.
func TestNamesAreNoPaths(t *testing.T) {
	w := newWorld(t)
	p := w.provider(t, nil)
	for _, name := range []string{"n-../../../x", "..", "n-a/b", "n-å"} {
		n := newNode(t, p, name, nil)
		n.phases(providers.PhaseInstall)
		dirs, err := filepath.Glob(filepath.Join(w.dir, "nodes", "*"+n.id, "agent.json"))
		if err != nil || len(dirs) != 1 {
			t.Errorf("%s: %q, %v", name, dirs, err)
		}
		if health := n.read(); !slices.Equal(health, []string{"agent not running", "not a member"}) {
			t.Errorf("%s: %q", name, health)
		}
		n.config = cty.NilVal
		n.phases(providers.PhaseStop, providers.PhaseRemove)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "nodes", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// What a change of the definition does, by plan alone.
func TestPlanChanges(t *testing.T) {
	w := newWorld(t)
	p := w.provider(t, nil)
	base := map[string]cty.Value{"endpoint": cty.StringVal("127.0.0.1:21000"), "server_id": cty.NumberUIntVal(1<<63 + 1)}
	digest, err := fileSum(w.program)
	if err != nil {
		t.Fatal(err)
	}
	base["program"] = cty.StringVal(digest)
	str, num := cty.StringVal, func(n int64) cty.Value { return cty.NumberIntVal(n) }
	tests := []struct {
		change  map[string]cty.Value
		phases  string
		impact  spec.Impact
		replace bool
	}{
		{map[string]cty.Value{}, "", spec.ImpactNone, false},
		{map[string]cty.Value{"address": str("127.0.0.1")}, "", spec.ImpactNone, false}, // where it is
		{map[string]cty.Value{"zone": str("b")}, "update", spec.ImpactNone, false},
		{map[string]cty.Value{"address": str("127.0.0.2:99")}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"port": num(99)}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"address": cty.UnknownVal(cty.String)}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"votes": num(0)}, "demote", spec.ImpactMembership, false},
		{map[string]cty.Value{"role": str("witness")}, "drain update resume", spec.ImpactMembership, false},
		{map[string]cty.Value{"provider": str("ssh")}, "", spec.ImpactReplace, true},
	}
	for _, tt := range tests {
		prior := &providers.Object{ID: "x", Value: nodeValue("n1", base)}
		res, err := p.Plan(providers.PlanRequest{Type: "node", Prior: prior, Config: nodeValue("n1", tt.change)})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(res.Phases, " "); got != tt.phases || res.Impact != tt.impact || (len(res.Replace) > 0) != tt.replace {
			t.Errorf("%v: %q, %s, replace %v; want %q, %s, %v", tt.change, got, res.Impact, res.Replace, tt.phases, tt.impact, tt.replace)
		}
	}
	if _, err := p.Plan(providers.PlanRequest{Type: "node", Config: nodeValue("n1", map[string]cty.Value{"address": str("h:0")})}); err == nil || !strings.Contains(err.Error(), "no port") {
		t.Errorf("port 0: %v", err)
	}
}

func fileSum(file string) (string, error) {
	data, err := os.ReadFile(file)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}

func TestConfigure(t *testing.T) {
	for mode, want := range map[string]string{"process": "", "netns": "processes only", "x": "no mode"} {
		err := New().Configure(cty.ObjectVal(map[string]cty.Value{"mode": cty.StringVal(mode)}), providers.Env{DataDir: "/x"})
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}
