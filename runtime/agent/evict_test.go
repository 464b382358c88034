package agent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// A dead node is taken out for good and another takes its name: what it had
// runs elsewhere, the quorum holds throughout, and when the old one comes back
// it has no say.
func TestEvictAndReplace(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	g := r.webGroup()
	g.PreferredOwners, g.Failover.Mode = []string{"n3", "n1"}, spec.FailoverNone
	if _, err := admin.PutGroup(r.ctx(), g, 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n3", "")
	refused := func(node, want string) {
		t.Helper()
		var e *client.Error
		if _, err := admin.Evict(r.ctx(), node, client.Order{}); !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("evict %s: %v", node, err)
		}
	}
	refused("n3", "drain it first")
	refused("n4", "no node")
	n3 := r.node("n3")
	n3.kill()
	r.settled(admin, func(s client.Status) string {
		for _, n := range s.Nodes {
			if n.Name == "n3" && n.State == spec.NodeUp {
				return "n3 is up"
			}
		}
		return ""
	})
	if _, err := admin.Drain(r.ctx(), "n2", client.Order{}); err != nil {
		t.Fatal(err)
	}
	refused("n2", "only 1 of them")
	if _, err := admin.Resume(r.ctx(), "n2", client.Order{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Evict(r.ctx(), "n3", client.Order{Reason: "its disk is gone"}); err != nil {
		t.Fatal(err)
	}
	s := r.settled(admin, allUp)
	if len(s.Nodes) != 2 || s.Quorum.Votes != 2 || s.Quorum.Needed != 2 {
		t.Errorf("after it: %+v", s)
	}
	r.answers("n1", "") // failover.mode none: its node is gone for good
	events, err := admin.Events(r.ctx(), 0)
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, e := range events {
		told = told || e.Kind == "node_evicting" && e.Author == "tester" && strings.Contains(e.Text, "its disk is gone")
	}
	if !told {
		t.Errorf("no word of it: %+v", events)
	}

	// Another machine under the same name and id, with an empty directory.
	other := &nodeRig{name: "n3", id: n3.id, dir: t.TempDir(), endpoint: freePort(t, "127.0.0.1")}
	writeNode(t, other.dir, r.id, other.id, other.name, other.endpoint, time.Hour)
	r.nodes = append(r.nodes, other)
	other.start(t)
	r.join(admin, other)
	r.settled(admin, allUp)

	// The old one comes back, with its vote and its log of then.
	n3.start(t)
	before, err := admin.Config(r.ctx(), true)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if !n3.said("the agent runs") {
			return "it does not run"
		}
		return ""
	})
	r.node("n1").kill()
	// It led, maybe: n2 and the new n3 decide.
	s = r.settled(r.client(client.RoleAdmin, r.node("n2").endpoint, other.endpoint), func(s client.Status) string {
		if !s.Quorum.Have || s.Quorum.Votes != 3 || s.Quorum.Up != 2 {
			return "not yet"
		}
		return ""
	})
	r.node("n1").start(t)
	after := r.settled(admin, allUp)
	if len(after.Nodes) != 3 || s.Leader == "" {
		t.Errorf("%+v, then %+v; config %d", s, after, before.ConfigRevision)
	}
}
