package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/internal/sshlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
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
			select {}
		case "version":
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// world is a host with OpenSSH's server on loopback, and a cluster in memory.
type world struct {
	t        *testing.T
	lab      *sshlab.Lab
	host     *sshlab.Host
	program  string
	identity *pki.Identity
	cluster  *providertest.Cluster
	nodes    *providers.Directory
	defined  map[addr.Address]cty.Value

	providers []*Provider
}

// newWorld makes it; config are lines of its sshd_config, in which HOSTDIR is the host's.
func newWorld(t *testing.T, config ...string) *world {
	t.Helper()
	if err := sshlab.Allowed(); err != nil {
		t.Skipf("no hosts with sshd here: %v", err)
	}
	lab, err := sshlab.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	for i := range config {
		config[i] = strings.ReplaceAll(config[i], "HOSTDIR", filepath.Join(lab.Dir, "h1"))
	}
	host, err := lab.Add("h1", "", "127.0.0.1", port(t), config...)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(host.Dir, "log"))
			t.Logf("sshd: %s", log)
		}
	})
	return &world{t: t, lab: lab, host: host, program: program, identity: identity, cluster: &providertest.Cluster{}, nodes: &providers.Directory{},
		defined: map[addr.Address]cty.Value{addr.Node("n1", addr.NoKey): nodeValue("n1", map[string]cty.Value{"address": cty.StringVal("127.0.0.1")})}}
}

func port(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (w *world) block(set map[string]cty.Value) cty.Value {
	b := New(Options{}).Schema().Config
	all := map[string]cty.Value{"user": cty.StringVal("root"), "port": cty.NumberIntVal(int64(w.host.Port)), "private_key_file": cty.StringVal(w.lab.KeyFile()),
		"known_hosts_file": cty.StringVal(w.lab.KnownHosts()), "ssh_config_file": cty.StringVal("none"), "connect_timeout": cty.StringVal("20s")}
	for k, v := range set {
		all[k] = v
	}
	return providertest.Default(b, all)
}

func (w *world) provider(set map[string]cty.Value) *Provider {
	w.t.Helper()
	p := New(Options{})
	err := p.Configure(w.block(set), providers.Env{DataDir: filepath.Join(w.lab.Dir, ".clusterplan"), Program: w.program, Version: "1.2.3",
		Identity: func() *pki.Identity { return w.identity }, Cluster: w.cluster, Nodes: w.nodes,
		Defined: w.defined})
	if err != nil {
		w.t.Fatal(err)
	}
	w.providers = append(w.providers, p)
	w.t.Cleanup(func() { p.Close() })
	return p
}

func nodeValue(name string, set map[string]cty.Value) cty.Value {
	all := map[string]cty.Value{"name": cty.StringVal(name), "provider": cty.StringVal(Name)}
	for k, v := range set {
		all[k] = v
	}
	return providertest.Default(spec.NodeSchema(), all)
}

// node is one node, by steps.
type node struct {
	*world
	p      *Provider
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

func (n *node) phases(phases ...string) {
	n.t.Helper()
	for _, phase := range phases {
		planned := cty.NilVal
		if n.config != cty.NilVal {
			planned = n.plan().Planned
		}
		res, err := n.p.Apply(n.t.Context(), providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: phase, Prior: n.prior, Planned: planned})
		if err != nil {
			n.t.Fatalf("%s: %v", phase, err)
		}
		n.prior = res.Object
	}
}

func (n *node) look() ([]string, error) {
	res, err := n.p.Read(n.t.Context(), providers.ReadRequest{Addr: n.addr(), Type: "node", ID: n.id, Prior: n.prior})
	if err != nil {
		return nil, err
	}
	if n.prior = res.Object; n.prior == nil {
		return []string{"nothing there"}, nil
	}
	return n.prior.Health, nil
}

// state is what the cluster knows of it.
func (n *node) state() providers.MemberState {
	n.t.Helper()
	st, err := n.cluster.MemberState(n.t.Context(), n.id)
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

func (n *node) read() []string {
	n.t.Helper()
	health, err := n.look()
	if err != nil {
		n.t.Fatal(err)
	}
	return health
}

// agents are the process ids of agents on the host, as this machine has them.
func (w *world) agents() []int {
	w.t.Helper()
	all, err := w.host.Processes()
	if err != nil {
		w.t.Fatal(err)
	}
	var pids []int
	for pid, line := range all {
		if strings.Contains(line, " agent --dir ") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// nothingLeft wants the host to be as it was.
func (w *world) nothingLeft() {
	w.t.Helper()
	for _, p := range w.providers {
		if err := p.Close(); err != nil {
			w.t.Error(err)
		}
	}
	for _, d := range []string{"lib", "units"} {
		if left, err := filepath.Glob(filepath.Join(w.host.Dir, d, "*")); err != nil || len(left) > 0 {
			w.t.Errorf("files are left on the host: %q, %v", left, err)
		}
	}
	var all map[int]string
	defer func() {
		if len(all) > 0 {
			w.t.Logf("on the host there is still %v", all)
		}
	}()
	w.eventually("no process is left on the host", func() bool { // a session's shell may be ending
		all, _ = w.host.Processes()
		return len(all) == 0
	})
}

func TestConformance(t *testing.T) {
	w := newWorld(t)
	providertest.Run(t, providertest.Object{
		New:    func(t *testing.T) providers.Provider { return w.provider(nil) },
		Addr:   addr.Node("n1", addr.NoKey),
		Type:   addr.TypeNode,
		ID:     pki.NewID(),
		Create: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))}),
		Update: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t))), "zone": cty.StringVal("east")}),
	})
	want := []string{"join n1", "promote n1", "drain n1", "update n1", "resume n1", "drain n1", "leave n1"}
	if got := w.cluster.Calls(); !slices.Equal(got, want) {
		t.Errorf("the cluster was asked %q, want %q", got, want)
	}
	w.nothingLeft()
}

// What happens to a host between two applies: each is found, and mended by what
// the plan says.
func TestDrift(t *testing.T) {
	w := newWorld(t)
	n := &node{world: w, p: w.provider(map[string]cty.Value{"api": cty.StringVal("ssh")}), name: "n1", id: pki.NewID(),
		config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})}
	n.phases(n.plan().Phases...)
	if health := n.read(); len(health) > 0 {
		t.Fatalf("after create: %q", health)
	}
	dir := filepath.Join(w.host.Dir, "lib", "clusterplan", "nodes", "n1")
	for _, name := range []string{"node.key", "cluster.key", "agent.json", "node.crt"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	first := w.agents()
	if len(first) != 1 {
		t.Fatalf("agents: %v", first)
	}
	if err := syscall.Kill(first[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.eventually("its supervisor starts the agent again", func() bool {
		now := w.agents()
		health, err := n.look()
		return err == nil && len(now) == 1 && now[0] != first[0] && len(health) == 0
	})

	edit := func(name string, change func(string) string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(change(string(data))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kill := func(what string) {
		t.Helper()
		all, err := w.host.Processes()
		if err != nil {
			t.Fatal(err)
		}
		for pid, line := range all {
			if strings.Contains(line, what) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func()
		health []string
		phases string
	}{
		{"script edited", func() { edit("supervise", func(s string) string { return s + "# mine\n" }) }, []string{"service script differs"}, "install"},
		{"supervisor killed", func() { kill("/supervise") }, []string{"supervisor not running"}, "drain stop install start resume"},
		{"both killed", func() {
			kill("/supervise")
			kill(" agent --dir ")
			w.eventually("both are gone", func() bool { return len(w.agents()) == 0 })
		}, []string{"agent not running"}, "start"},
		{"configuration edited", func() {
			edit("agent.json", func(s string) string { return strings.Replace(s, `"cluster": "test"`, `"cluster": "x"`, 1) })
		},
			[]string{"agent.json differs"}, "drain stop install start resume"},
		{"certificate that expires", func() { // it began some minutes ago, so that two more are less than a third
			cert, err := w.identity.NodeCert(n.id, n.name, 2*time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			edit("node.key", func(string) string { return string(cert.Key) })
			edit("node.crt", func(string) string { return string(cert.Cert) })
		}, []string{"certificate expires in 1 day"}, "install"},
		{"certificate gone", func() { edit("node.crt", func(string) string { return "" }) }, []string{"certificate missing"}, "install"},
		{"plug pulled", func() {
			if err := errors.Join(w.host.Stop(), w.host.Start()); err != nil {
				t.Fatal(err)
			}
		}, []string{"agent not running"}, "start"},
	} {
		tt.change()
		if health := n.read(); !slices.Equal(health, tt.health) {
			t.Fatalf("%s: read finds %q, want %q", tt.name, health, tt.health)
		}
		plan := n.plan()
		if got := strings.Join(plan.Phases, " "); got != tt.phases {
			t.Fatalf("%s: the plan does %q, want %q", tt.name, got, tt.phases)
		}
		n.phases(plan.Phases...)
		if health := n.read(); len(health) > 0 {
			t.Fatalf("%s: after: %q", tt.name, health)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "node.crt")); err != nil {
			t.Error(err)
		} else if peer, err := pki.ParseCert(data); err != nil || time.Until(peer.NotAfter) < 80*24*time.Hour {
			t.Errorf("%s: the certificate ends at %s, %v", tt.name, peer.NotAfter, err)
		}
	}

	// Another build is an upgrade in place; the program before stays, the one
	// before that goes. The way back is one too, without an upload.
	uploaded := map[string]os.FileInfo{} // by name
	for i := range 3 {
		data, err := os.ReadFile(w.program)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := os.Readlink(filepath.Join(dir, "bin", "clusterplan"))
		if i == 2 {
			data = bytes.TrimSuffix(data, []byte("build 1"))
		} else {
			data = append(data, fmt.Sprintf("build %d", i)...)
		}
		w.program = filepath.Join(t.TempDir(), "clusterplan")
		if err := os.WriteFile(w.program, data, 0o755); err != nil {
			t.Fatal(err)
		}
		n.p = w.provider(nil)
		if health := n.read(); !slices.Equal(health, []string{"agent program differs"}) {
			t.Fatalf("an upgrade: read finds %q", health)
		}
		n.phases(n.plan().Phases...)
		if health := n.read(); len(health) > 0 {
			t.Fatalf("after an upgrade: %q", health)
		}
		now, _ := os.Readlink(filepath.Join(dir, "bin", "clusterplan"))
		info, err := os.Stat(filepath.Join(dir, "..", "..", "bin", filepath.Base(now)))
		if err != nil || i == 2 && (uploaded[now] == nil || !os.SameFile(info, uploaded[now]) || !info.ModTime().Equal(uploaded[now].ModTime())) {
			t.Errorf("the program before was uploaded again for the way back: %v", err)
		}
		uploaded[now] = info
		previous, _ := os.Readlink(filepath.Join(dir, "bin", "clusterplan.previous"))
		if programs, _ := os.ReadDir(filepath.Join(dir, "..", "..", "bin")); len(programs) != 2 || previous != before || before == "" {
			t.Errorf("programs %v, before %s, previous %s", programs, before, previous)
		}
	}

	// How it is reached may change without a touch of what runs.
	pids := w.agents()
	n.config = nodeValue("n1", map[string]cty.Value{"address": n.config.GetAttr("address"),
		"ssh": providertest.Default(spec.Schema{Attributes: spec.SSHBlock().Attributes}, map[string]cty.Value{"host_key": cty.StringVal(w.host.Key())})})
	plan := n.plan()
	if got := strings.Join(plan.Phases, " "); got != "install" || plan.Impact != spec.ImpactNone {
		t.Errorf("another way to reach it: %q, %s", got, plan.Impact)
	}
	n.phases(plan.Phases...)
	if health := n.read(); len(health) > 0 || !slices.Equal(pids, w.agents()) {
		t.Errorf("after that: %q, agents %v, before %v", health, w.agents(), pids)
	}

	// A host that is down is its own error; another key is not that.
	if err := w.host.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.look(); !errors.Is(err, providers.ErrUnreachable) {
		t.Errorf("a host that is down: %v", err)
	}
	// The cluster takes its vote, and gives it back, all the same; it still is where it was.
	with, before := n.config, n.state()
	for _, votes := range []int64{0, 1} {
		attrs := with.AsValueMap()
		attrs["votes"] = cty.NumberIntVal(votes)
		n.config = cty.ObjectVal(attrs)
		n.phases(n.plan().Phases[0])
		if now := n.state(); int64(now.Spec.Votes) != votes || now.Endpoint != before.Endpoint || now.Endpoint == "" {
			t.Errorf("with %d votes: %+v, was %+v", votes, now, before)
		}
	}
	n.config = with
	if err := w.host.Start(); err != nil {
		t.Fatal(err)
	}
	attrs := n.config.AsValueMap()
	attrs["ssh"] = providertest.Default(spec.Schema{Attributes: spec.SSHBlock().Attributes}, map[string]cty.Value{"host_key": cty.StringVal("SHA256:" + strings.Repeat("A", 43))})
	w.defined[n.addr()] = cty.ObjectVal(attrs) // what the definition says now counts
	if _, err := n.look(); err == nil || errors.Is(err, providers.ErrUnreachable) {
		t.Errorf("another host key: %v", err)
	}
	delete(w.defined, n.addr())

	n.config = cty.NilVal
	n.phases("drain", "leave", "stop", "remove")
	w.nothingLeft()
}

// A program for another architecture has to be given, and is told apart.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	other := "arm64"
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := New(Options{})
	configure := func(programs map[string]cty.Value) error {
		b := providertest.Default(p.Schema().Config, map[string]cty.Value{"programs": cty.MapVal(programs)})
		return p.Configure(b, providers.Env{DataDir: "/x/.clusterplan", Program: own})
	}
	prior := &providers.Object{ID: "x", Value: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal("192.0.2.1"), "endpoint": cty.StringVal("192.0.2.1:7400"), "server_id": cty.NumberIntVal(1)}),
		Private: []byte(`{"dir":"n1","arch":"` + other + `","place":{"directory":"` + DefaultDirectory + `"}}`)}
	req := providers.PlanRequest{Type: "node", Prior: prior, Config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal("192.0.2.1")})}
	if err := configure(map[string]cty.Value{"riscv64": cty.StringVal("nowhere")}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Plan(req); err == nil || !strings.Contains(err.Error(), "GOARCH="+other) || !strings.Contains(err.Error(), "programs = {") {
		t.Errorf("no program for it: %v", err)
	}
	if err := configure(map[string]cty.Value{other: cty.StringVal(own)}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Plan(req); err == nil || !strings.Contains(err.Error(), "another architecture") {
		t.Errorf("a program for another one: %v", err)
	}
	req.Prior = nil
	res, err := p.Plan(req)
	if err != nil || res.Planned.GetAttr("program").IsKnown() {
		t.Errorf("a host that nobody has seen: %v, %v", res.Planned, err)
	}
}

func TestConfigure(t *testing.T) {
	for _, c := range []struct {
		set  map[string]cty.Value
		want string
	}{
		{nil, ""},
		{map[string]cty.Value{"directory": cty.StringVal("var")}, "absolute"},
		{map[string]cty.Value{"directory": cty.StringVal("/var/lib/a;reboot")}, "absolute path of letters"},
		{map[string]cty.Value{"directory": cty.StringVal("/var/lib/a$HOME")}, "absolute path of letters"},
		{map[string]cty.Value{"port": cty.NumberIntVal(70000)}, "no port"},
		{map[string]cty.Value{"sudo_password": cty.StringVal("x").Mark(schema.Sensitive)}, "sudo = true"},
		{map[string]cty.Value{"sudo": cty.True, "sudo_password": cty.StringVal("x").Mark(schema.Sensitive)}, ""},
		{map[string]cty.Value{"jump_hosts": cty.ListVal([]cty.Value{cty.StringVal("me@gate:x")})}, "no port after"},
		{map[string]cty.Value{"jump_hosts": cty.ListVal([]cty.Value{cty.StringVal("me@gate:22")})}, ""},
		{map[string]cty.Value{"connect_timeout": cty.StringVal("0s")}, "no time"},
	} {
		p := New(Options{})
		err := p.Configure(providertest.Default(p.Schema().Config, c.set), providers.Env{DataDir: "/x/.clusterplan"})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.set, err)
		}
		if err != nil {
			continue
		}
		if _, err := p.Plan(providers.PlanRequest{Type: "node", Config: nodeValue("n1", nil)}); err == nil || !strings.Contains(err.Error(), "needs an address") {
			t.Errorf("a node without an address: %v", err)
		}
	}
}
