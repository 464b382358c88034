package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	app "github.com/clusterplan/clusterplan/client"
)

const otherNodes = "node \"n2\" {\n  provider = local\n}\n\nnode \"n3\" {\n  provider = local\n}\n"

// oneNode brings the example up as a cluster of n1 alone.
func (l *lab) oneNode() {
	l.t.Helper()
	l.edit(otherNodes, "")
	l.edit(`"majority_node_set"`, `"single_node"`)
	l.edit("[node.n1, node.n2, node.n3]", "[node.n1]")
	l.edit("[node.n2, node.n3, node.n1]", "[node.n1]")
	l.apply()
	l.served("n1")
}

// One node with a group that runs and keys in the database becomes three, by an
// apply that is killed on the way and one that goes on with it: the group is
// never stopped. Then the first node dies, and another has all of it.
func TestOneNodeGrowsToThree(t *testing.T) {
	l := newLab(t)
	l.patient()
	l.oneNode()
	ask := func(node string) *app.Space {
		c, err := app.New(app.Config{Socket: filepath.Join(l.dir, ".clusterplan", "nodes", node, "run", "api.sock")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c.Cluster()
	}
	old, err := ask("n1").Put(t.Context(), "kept", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	before := l.node("n1")
	runs := func() (pids []int) {
		for _, p := range l.processes() {
			if strings.Contains(p.args, "demo web") {
				pids = append(pids, p.pid)
			}
		}
		return pids
	}
	web := runs()

	// A second node beside single_node is an error of the definition.
	l.edit("node \"n1\" {\n  provider = local\n}\n", "node \"n1\" {\n  provider = local\n}\n\n"+otherNodes)
	l.must(1, "validate").wants(t, "single_node with more than one node")
	l.edit(`"single_node"`, `"majority_node_set"`)
	l.edit("preferred_owners = [node.n1]\n\n  failback", "preferred_owners = [node.n1, node.n2, node.n3]\n\n  failback")
	plan := l.must(0, "plan")
	plan.wants(t, `quorum.model = "single_node" -> "majority_node_set"`, "no group stops", "Quorum (majority_node_set): 3 votes, 2 needed")
	if strings.Contains(plan.out, "Interruptions") {
		t.Errorf("the plan interrupts something: %s", plan)
	}

	apply, _, _ := l.command(t.Context(), "apply", "--auto-approve")
	if err := apply.Start(); err != nil {
		t.Fatal(err)
	}
	l.until("the change has begun", func() (bool, string) {
		_, err := os.Stat(filepath.Join(l.dir, ".clusterplan", "nodes", "n1", "majority"))
		return err == nil, "no mark"
	})
	_ = apply.Process.Kill()
	_ = apply.Wait()
	l.apply()
	l.settled()
	l.up(3, 3)
	if after := l.node("n1"); after.PID != before.PID || after.MonitorPID != before.MonitorPID {
		t.Errorf("n1 started again: %+v, before %+v", after, before)
	}
	if now := runs(); len(web) != 1 || len(now) != 1 || now[0] != web[0] {
		t.Errorf("the group started again: processes %v, before %v", now, web)
	}
	for _, g := range l.status().Groups {
		if g.Epoch != 1 || g.Owner != "n1" {
			t.Errorf("%+v", g)
		}
	}

	l.kill("n1")
	l.served("n2")
	e, err := ask("n2").Get(t.Context(), "kept")
	if err != nil || string(e.Value) != "value" || e.Revision != old {
		t.Errorf("the key is %q at %d (written at %d), %v", e.Value, e.Revision, old, err)
	}
	for _, g := range l.status().Groups {
		if g.Name == "web" && g.Epoch < 2 {
			t.Errorf("%+v", g)
		}
	}

	// There is no way back.
	l.edit(`"majority_node_set"`, `"single_node"`)
	l.edit(otherNodes, "")
	l.edit("preferred_owners = [node.n1, node.n2, node.n3]", "preferred_owners = [node.n1]")
	l.must(1, "plan").wants(t, "keep majority_node_set and remove the other nodes")
	l.destroyed()
}
