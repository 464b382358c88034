package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

// The test binary is also the agent, the monitor, the guardian, and the service
// that a group runs, so that each is a process of its own and can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			os.Exit(agentMain(os.Args[2]))
		case "monitor":
			os.Exit(monitor.Main(os.Args[2:]))
		case "guard":
			os.Exit(monitor.GuardMain(os.Args[2:]))
		case "intruder":
			os.Exit(intruderMain(os.Args[2], os.Args[3:]))
		case "serve":
			os.Exit(serveMain(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

func agentMain(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if os.Getenv(triggerVariable) == "" {
		os.Setenv(triggerVariable, "/nonexistent") // no test has this host's
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	within, _ := time.ParseDuration(os.Getenv(withinVariable)) // none: the agent's own
	if err := agent.Run(ctx, agent.Config{Dir: dir, StopWithin: within, Log: log, API: api.Handler, Addresses: testAddresses(), SysrqTrigger: os.Getenv(triggerVariable)}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveMain(address string) int {
	err := http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, os.Getenv("CLUSTERPLAN_NODE"))
	}))
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// patience bounds every wait: far more than anything takes on a busy machine.
const patience = 30 * time.Second

// clusterRig is a cluster of agent processes on loopback.
type clusterRig struct {
	t      *testing.T
	id     *pki.Identity
	nodes  []*nodeRig
	web    string // where the group answers
	device string // of single_quorum
}

type nodeRig struct {
	name, id, dir, endpoint string
	cmd                     *exec.Cmd
	env                     []string // beside this process's
	done                    chan struct{}
}

// given are the ports that freePort has told: the kernel may give one again before
// the agent that it is for listens there.
var given sync.Map

func freePort(t *testing.T, host string) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		if _, again := given.LoadOrStore(address, true); !again {
			return address
		}
	}
}

func newRig(t *testing.T, n int) *clusterRig {
	t.Helper()
	id, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	r := &clusterRig{t: t, id: id, web: freePort(t, "127.0.0.1")}
	for i := range n {
		r.addNode(fmt.Sprintf("n%d", i+1))
	}
	t.Cleanup(func() {
		for _, n := range r.nodes {
			n.kill()
		}
		for _, n := range r.nodes {
			n.monitorsGone()
		}
		for _, n := range r.nodes {
			if log, _ := os.ReadFile(filepath.Join(n.dir, "agent.log")); bytes.Contains(log, []byte("DATA RACE")) {
				t.Errorf("the race detector spoke in %s", n.name)
			}
		}
		if t.Failed() {
			for _, n := range r.nodes {
				log, _ := os.ReadFile(filepath.Join(n.dir, "agent.log"))
				if len(log) > 6000 {
					log = log[len(log)-6000:]
				}
				t.Logf("log of %s:\n%s", n.name, log)
			}
		}
	})
	return r
}

func (r *clusterRig) addNode(name string) *nodeRig {
	r.t.Helper()
	n := &nodeRig{name: name, id: pki.NewID(), dir: filepath.Join(r.t.TempDir(), name), endpoint: freePort(r.t, "127.0.0.1")}
	writeNode(r.t, n.dir, r.id, n.id, name, n.endpoint, time.Hour)
	r.nodes = append(r.nodes, n)
	return n
}

// writeNode makes a node's directory as a provider does.
func writeNode(t *testing.T, dir string, id *pki.Identity, nodeID, name, endpoint string, life time.Duration) {
	t.Helper()
	cert, err := id.NodeCert(nodeID, name, life)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := json.Marshal(map[string]string{"cluster_id": id.ID, "cluster": id.Name, "node_id": nodeID, "name": name, "address": endpoint, "version": "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{"agent.json": conf, "node.crt": cert.Cert, "node.key": cert.Key, "ca.crt": id.CACert, "cluster.key": []byte(id.KeyText())} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *nodeRig) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.cmd = exec.Command(os.Args[0], "agent", n.dir)
	n.cmd.Stderr, n.cmd.Env = log, append(os.Environ(), n.env...)
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// kill ends the agent with -9; its monitor and what that hosts is left to the lease.
func (n *nodeRig) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		<-n.done
		n.cmd = nil
	}
}

// monitorsGone waits until the monitors of a killed agent have ended: until then
// they write to the directory, which is about to be removed.
func (n *nodeRig) monitorsGone() {
	for _, name := range []string{"node.lock", "freezer.lock"} {
		f, err := os.Open(filepath.Join(n.dir, "run", name))
		if err != nil {
			continue // there was none
		}
		for end := time.Now().Add(patience); syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		f.Close()
	}
}

// term asks the agent to end and waits for it.
func (n *nodeRig) term(t *testing.T) int {
	t.Helper()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.done:
	case <-time.After(patience):
		t.Fatalf("%s does not end on SIGTERM", n.name)
	}
	code := n.cmd.ProcessState.ExitCode()
	n.cmd = nil
	return code
}

func (r *clusterRig) client(role string, endpoints ...string) *client.Client {
	r.t.Helper()
	cert, err := r.id.ClientCert("tester", role, time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		r.t.Fatal(err)
	}
	conf, err := pki.ClientConfig(r.id.CACert, r.id.ID, pair, "")
	if err != nil {
		r.t.Fatal(err)
	}
	if len(endpoints) == 0 {
		for _, n := range r.nodes {
			endpoints = append(endpoints, n.endpoint)
		}
	}
	c := client.New(client.Options{Endpoints: endpoints, TLS: conf, Patience: patience})
	r.t.Cleanup(c.Close)
	return c
}

func (r *clusterRig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*patience)
	r.t.Cleanup(cancel)
	return ctx
}

// eventually polls until fn says "" (what is missing else).
func eventually(t *testing.T, fn func() string) {
	t.Helper()
	missing := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if missing = fn(); missing == "" {
			return
		}
	}
	t.Fatalf("not after %s: %s", patience, missing)
}

func (r *clusterRig) self(n *nodeRig) client.Self {
	r.t.Helper()
	c := r.client(client.RoleReader)
	var self client.Self
	eventually(r.t, func() string {
		ctx, cancel := context.WithTimeout(r.ctx(), time.Second)
		defer cancel()
		var err error
		if self, err = c.Self(ctx, n.endpoint); err != nil {
			return err.Error()
		}
		return ""
	})
	return self
}

func (r *clusterRig) request(n *nodeRig) client.MemberRequest {
	self := r.self(n)
	return client.MemberRequest{
		Spec:     spec.Node{ID: n.id, Addr: addr.Node(n.name, addr.Key{}), Name: n.name, Provider: "local", Votes: 1, Role: spec.RoleMember},
		ServerID: self.ServerID, Endpoint: n.endpoint, Version: "test",
	}
}

// form starts all nodes and makes them a cluster.
func (r *clusterRig) form(model spec.QuorumModel) *client.Client {
	r.t.Helper()
	for _, n := range r.nodes {
		n.start(r.t)
	}
	admin := r.client(client.RoleAdmin)
	cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: spec.Quorum{Model: model, Device: r.device}, Heartbeat: calm}
	if _, err := admin.Bootstrap(r.ctx(), r.nodes[0].endpoint, client.Bootstrap{Cluster: cl, Member: r.request(r.nodes[0])}); err != nil {
		r.t.Fatalf("bootstrap: %v", err)
	}
	for _, n := range r.nodes[1:] {
		r.join(admin, n)
	}
	return admin
}

func (r *clusterRig) join(admin *client.Client, n *nodeRig) {
	r.t.Helper()
	if _, err := admin.Join(r.ctx(), r.request(n)); err != nil {
		r.t.Fatalf("join %s: %v", n.name, err)
	}
	if _, err := admin.Promote(r.ctx(), n.id); err != nil {
		r.t.Fatalf("promote %s: %v", n.name, err)
	}
}

// webGroup is a group with a service that answers with its node's name.
func (r *clusterRig) webGroup() spec.Group {
	g := addr.Group("web", addr.Key{})
	poll := func(d time.Duration) spec.Poll {
		return spec.Poll{Interval: spec.Duration(d), Timeout: spec.Duration(10 * time.Second)}
	}
	return spec.Group{ID: "00000000000000a1", Addr: g, Name: "web", Priority: 2000, PersistentState: spec.WantOnline, NoQuorum: spec.NoQuorumStop,
		PreferredOwners: []string{"n1", "n2", "n3"},
		Failover:        spec.Failover{Mode: spec.FailoverAutomatic, Period: spec.Duration(6 * time.Hour)},
		Failback:        spec.Failback{Mode: spec.FailbackPrevent},
		ManagedBy:       spec.ManagedBy,
		Resources: []spec.Resource{{ID: "00000000000000b1", Addr: g.WithResource("server", addr.Key{}), Name: "server", Type: "generic_application",
			Attributes:     map[string]any{"command": []any{os.Args[0], "serve", r.web}},
			PendingTimeout: spec.Duration(3 * time.Minute), LooksAlive: poll(5 * time.Second), IsAlive: poll(time.Minute),
			Restart: spec.Restart{Action: spec.RestartRestart, Threshold: 3, Period: spec.Duration(15 * time.Minute), AffectGroup: true}}}}
}

// answers waits until the service answers from a node that is not other than
// wanted ("": any but not), and says from which.
func (r *clusterRig) answers(want, not string) (by string) {
	r.t.Helper()
	hc := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(r.t, func() string {
		res, err := hc.Get("http://" + r.web + "/")
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if by = string(body); err != nil || by == "" || (want != "" && by != want) || by == not {
			return fmt.Sprintf("the answer comes from %q", by)
		}
		return ""
	})
	return by
}

func (r *clusterRig) node(name string) *nodeRig {
	for _, n := range r.nodes {
		if n.name == name {
			return n
		}
	}
	r.t.Fatalf("no node %q", name)
	return nil
}

// settled waits until the status is as fn wants it.
func (r *clusterRig) settled(c *client.Client, fn func(client.Status) string) client.Status {
	r.t.Helper()
	var s client.Status
	eventually(r.t, func() string {
		var err error
		if s, err = c.Status(r.ctx()); err != nil {
			return err.Error()
		}
		if why := fn(s); why != "" {
			return fmt.Sprintf("%s: %+v", why, s)
		}
		return ""
	})
	return s
}

func allUp(s client.Status) string {
	for _, n := range s.Nodes {
		if n.State != spec.NodeUp {
			return n.Name + " is " + n.State
		}
	}
	for _, g := range s.Groups {
		if g.State != spec.StateOnline {
			return g.Name + " is " + g.State
		}
	}
	if !s.Quorum.Have || s.Leader == "" {
		return "no quorum"
	}
	return ""
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// calm are timings with leases long enough that a host that stands still for a
// moment moves no group: where groups are is tested here, not how soon.
var calm = spec.Timings{Profile: spec.ProfileCustom, Interval: spec.Duration(200 * time.Millisecond)}.WithDefaults()

func TestThreeNodes(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	r.settled(admin, allUp)

	var mu sync.Mutex
	var kinds []string
	followed := make(chan struct{})
	fctx, stopFollow := context.WithCancel(r.ctx())
	go func() {
		defer close(followed)
		var last uint64
		_ = admin.Follow(fctx, 0, func(e client.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.ID != last+1 {
				t.Errorf("event %d follows %d", e.ID, last)
			}
			last = e.ID
			kinds = append(kinds, e.Kind)
		})
	}()

	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	if by := r.answers("", ""); by != "n1" {
		t.Errorf("the group began on %s, its first preferred owner is n1", by)
	}
	r.settled(admin, allUp)

	// The owner's agent and monitor are killed: another node answers, and
	// nothing of the dead one's is left.
	self, held := r.self(r.node("n1")), serving(r.web)
	for _, pid := range []int{self.PID, self.MonitorPID} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	r.node("n1").kill()
	by := r.answers("", "n1")
	if by != "n2" {
		t.Errorf("n1's group went to %s; the next preferred owner is n2", by)
	}
	r.settled(admin, func(s client.Status) string {
		if s.Nodes[0].State != spec.NodeDown || s.Groups[0].State != spec.StateOnline || s.Groups[0].Owner != "n2" {
			return "not over yet"
		}
		return ""
	})

	for _, pid := range held {
		if alive(pid) {
			t.Errorf("process %d of n1 lives though n2 has its group", pid)
		}
	}

	// It comes back, and the group stays where it is.
	r.node("n1").start(t)
	r.settled(admin, allUp)
	r.answers("n2", "")

	// The process alone: restarted where it is.
	epoch := r.settled(admin, allUp).Groups[0].Epoch
	was := serving(r.web)
	if len(was) != 1 {
		t.Fatalf("processes %v serve", was)
	}
	if err := syscall.Kill(was[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.answers("n2", "")
	if s := r.settled(admin, allUp); s.Groups[0].Epoch != epoch {
		t.Errorf("a restart changed the epoch from %d to %d", epoch, s.Groups[0].Epoch)
	}

	// The monitor alone: all that it hosted is gone, another is started, and the
	// group runs again.
	self = r.self(r.node("n2"))
	old := serving(r.web)
	if err := syscall.Kill(self.MonitorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if now := r.self(r.node("n2")).MonitorPID; now == 0 || now == self.MonitorPID {
			return "no new monitor"
		}
		for _, pid := range old {
			if alive(pid) {
				return fmt.Sprintf("process %d of the old monitor lives", pid)
			}
		}
		return ""
	})
	r.answers("", "")
	r.settled(admin, allUp)

	// Operators.
	operator := r.client(client.RoleOperator)
	if _, err := operator.Move(r.ctx(), "web", client.Order{Node: "n3", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	r.answers("n3", "")
	if _, err := operator.Drain(r.ctx(), "n3", client.Order{}); err != nil {
		t.Fatal(err)
	}
	r.answers("", "n3")
	if _, err := operator.Resume(r.ctx(), "n3", client.Order{}); err != nil {
		t.Fatal(err)
	}
	s := r.settled(admin, allUp)

	// An agent that is asked to end releases its groups first.
	owner := r.node(s.Groups[0].Owner)
	if code := owner.term(t); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	r.answers("", owner.name)
	owner.start(t)
	r.settled(admin, allUp)

	// A node leaves for good, the leader too.
	lead := r.node(r.settled(admin, allUp).Leader)
	if _, err := operator.Drain(r.ctx(), lead.name, client.Order{}); err != nil {
		t.Fatal(err)
	}
	r.settled(admin, func(s client.Status) string {
		if g := s.Groups[0]; g.Owner == lead.name || g.State != spec.StateOnline {
			return "not drained"
		}
		return ""
	})
	if _, err := admin.Leave(r.ctx(), lead.id); err != nil {
		t.Fatal(err)
	}
	r.settled(admin, func(s client.Status) string {
		if len(s.Nodes) != 2 {
			return "three nodes"
		}
		return allUp(s)
	})

	if _, err := admin.DeleteGroup(r.ctx(), r.webGroup().ID, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		conf, err := admin.Config(r.ctx(), true)
		if err != nil || len(conf.Groups) > 0 {
			return fmt.Sprint("the group is still there ", err)
		}
		return ""
	})
	stopFollow()
	<-followed
	mu.Lock()
	defer mu.Unlock()
	if len(kinds) < 10 {
		t.Errorf("events: %q", kinds)
	}
}

// serving are the processes that serve at address.
func serving(address string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(line), "\x00serve\x00"+address+"\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/cmdline", &pid); err == nil && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
