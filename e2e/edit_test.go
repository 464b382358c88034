package e2e

import (
	"crypto/tls"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func killProcess(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

// outage bounds a planned move on a machine that tests keep busy. Quiet ones
// take a tenth; bench measures.
const outage = 20 * time.Second

// The definition is edited: the plan shows exactly that, apply does it while
// the service goes on, and a second plan has nothing to do.
func TestEdit(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	steps := []struct {
		name  string
		edit  func()
		plan  []string // what changes, exactly
		owner string   // of web afterwards; "": any
	}{
		{"a new resource", func() {
			l.edit(`  resource "generic_application" "worker" {`, `  resource "generic_application" "second" {
    command = ["sleep", "100000"]
  }

  resource "generic_application" "worker" {`)
		}, []string{"group.worker.resource.second"}, "n1"},
		{"another preferred owner", func() {
			l.edit("preferred_owners = [node.n1, node.n2, node.n3]", "preferred_owners = [node.n2, node.n1, node.n3]")
		}, []string{"group.web"}, ""},
		{"a fourth node", func() {
			l.edit(`node "n3" {`, "node \"n4\" {\n  provider = local\n}\n\nnode \"n3\" {")
		}, []string{"node.n4"}, ""},
		{"a node goes, and with it the owner", func() {
			l.edit("node \"n1\" {\n  provider = local\n}\n", "")
			l.edit("preferred_owners = [node.n2, node.n1, node.n3]", "preferred_owners = [node.n2, node.n3]")
			l.edit("preferred_owners = [node.n2, node.n3, node.n1]", "preferred_owners = [node.n2, node.n3]")
		}, []string{"node.n1", "group.web", "group.worker"}, ""},
	}
	for _, s := range steps {
		s.edit()
		if got := l.planned(); !slices.Equal(got, s.plan) {
			t.Errorf("%s: the plan changes %q, want %q", s.name, got, s.plan)
		}
		p := l.probe()
		l.apply()
		l.served("n1", "n2", "n3", "n4")
		if worst := p.worst(); worst > outage {
			t.Errorf("%s: no answer for %s", s.name, worst)
		}
		if s.owner != "" {
			l.served(s.owner)
		}
		l.settled()
	}
	if _, err := os.Stat(filepath.Join(l.dir, ".clusterplan", "nodes", "n1")); err == nil {
		t.Error("the directory of n1 is left")
	}
	l.up(3, 3)
	st := l.status()
	if len(st.Nodes) != 3 {
		t.Errorf("status: %+v", st)
	}
	l.groupOnline("worker", "")
	l.destroyed()
}

// planned are the addresses of what a plan changes.
func (l *lab) planned() []string {
	l.t.Helper()
	var plan struct {
		Changes []struct {
			Address string   `json:"address"`
			Actions []string `json:"actions"`
		} `json:"changes"`
	}
	r := l.must(0, "plan", "--json")
	if err := json.Unmarshal([]byte(r.out), &plan); err != nil {
		l.t.Fatalf("plan --json: %v: %s", err, r)
	}
	var changed []string
	for _, c := range plan.Changes {
		if !slices.Equal(c.Actions, []string{"no-op"}) {
			changed = append(changed, c.Address)
		}
	}
	return changed
}

// A certificate that is nearly over is drift: apply renews it, and the agent
// takes the new one without a restart.
func TestCertificateRenewed(t *testing.T) {
	l := newLab(t)
	l.apply()
	before := l.node("n2")
	dir := filepath.Join(l.dir, ".clusterplan", "nodes", "n2")
	var conf struct {
		NodeID string `json:"node_id"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "agent.json"))
	if err == nil {
		err = json.Unmarshal(data, &conf)
	}
	if err != nil {
		t.Fatal(err)
	}
	// It began some minutes ago, so that two more are less than a third.
	cert, err := l.identity().NodeCert(conf.NodeID, "n2", 2*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"node.key": cert.Key, "node.crt": cert.Cert} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.must(2, "plan", "--detailed-exitcode").wants(t, "node.n2", "certificate expires")
	if got := l.planned(); !slices.Equal(got, []string{"node.n2"}) {
		t.Errorf("the plan changes %q", got)
	}
	l.apply()
	l.settled()
	l.until("n2 shows its new certificate", func() (bool, string) {
		conn, err := tls.Dial("tcp", before.Address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close()
		end := conn.ConnectionState().PeerCertificates[0].NotAfter
		return time.Until(end) > 80*24*time.Hour, end.String()
	})
	if after := l.node("n2"); after.PID != before.PID {
		t.Errorf("the agent was restarted: pid %d, now %d", before.PID, after.PID)
	}
	l.destroyed()
}

// A rebuilt program is an upgrade of the agents, one node at a time; the
// service goes on.
func TestUpgrade(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	l.program = filepath.Join(t.TempDir(), "clusterplan")
	// What follows an ELF file's end changes its digest and nothing else.
	if err := os.WriteFile(l.program, append(data, "another build"...), 0o755); err != nil {
		t.Fatal(err)
	}
	plan := l.must(2, "plan", "--detailed-exitcode")
	plan.wants(t, "agent program differs", "node.n1", "node.n2", "node.n3")
	p := l.probe()
	l.apply()
	l.served("n1", "n2", "n3")
	if worst := p.worst(); worst > outage {
		t.Errorf("no answer for %s", worst)
	}
	l.settled()
	programs, err := filepath.Glob(filepath.Join(l.dir, ".clusterplan", "bin", "clusterplan-*"))
	if err != nil || len(programs) != 1 {
		t.Errorf("programs that are left: %q, %v", programs, err)
	}
	l.up(3, 3)
	l.destroyed()
}
