package api

import (
	"context"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A bootstrap that is sent again, as its answer was slow: with a quorum device
// the node is no leader yet and knows no members while it claims the device.
func TestBootstrapSentAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		voters []uint64
		want   int
	}{{"its own", []uint64{1}, 200}, {"another's cluster", []uint64{1, 2}, 409}} {
		f := newFake(t)
		f.status.Driver.Role = confdb.Candidate
		h := New(f)
		answer := make(chan int, 1)
		go func() {
			code, _ := ask(t, h, client.RoleAdmin, "POST", client.PathBootstrap, client.Bootstrap{Cluster: testCluster(), Member: request(1)})
			answer <- code
		}()
		select {
		case <-f.asked: // the request has looked, and waits for a change
		case got := <-answer:
			t.Errorf("%s: %d while the device is being claimed", c.name, got)
			continue
		}
		f.mu.Lock()
		d := &f.status.Driver
		d.Role, d.Ready, d.Voters, d.Needed = confdb.Leader, true, c.voters, 1
		f.status.LeaderNode, f.status.Quorum = f.facts.NodeID, true
		close(f.changed)
		f.changed = make(chan struct{})
		f.mu.Unlock()
		if got := <-answer; got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
		if len(f.ops) > 0 {
			t.Errorf("%s: %q", c.name, f.ops)
		}
	}
}

// A bootstrap that was cut off once the database knew the cluster: the next apply
// takes the change lease before it goes on with it, and goes on under it.
func TestBootstrapUnderTheChangeLease(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	h := New(f)
	first := client.Bootstrap{Cluster: testCluster(), Member: request(1)}
	f.submit = func(c confdb.Command) (confdb.Result, error) {
		if c.PutNode != nil {
			return confdb.Result{}, context.Canceled // the apply was killed
		}
		return f.state.Apply(c), nil
	}
	if code, _ := ask(t, h, client.RoleAdmin, "POST", client.PathBootstrap, first); code == 200 || f.state.Cluster.ID == "" {
		t.Fatalf("it was not cut off: %d", code)
	}
	f.submit = nil
	if code, text := ask(t, h, client.RoleAdmin, "PUT", client.PathChange, client.TakeChange{ID: "a", What: "apply", TermMS: 1000}); code != 200 {
		t.Fatal(code, text)
	}
	if code, text := ask(t, h, client.RoleAdmin, "POST", client.PathBootstrap, first); code != 409 {
		t.Errorf("somebody else's goes on: %d, %s", code, text)
	}
	if code, text := ask(t, h, client.RoleAdmin, "POST", client.PathBootstrap, first, client.HeaderChange, "a"); code != 200 || !f.state.Nodes["id1"].Joined {
		t.Errorf("%d, %s", code, text)
	}
}

// A node that can't use its quorum device says so where it can't do what it is asked.
func TestNoQuorumNamesTheDevice(t *testing.T) {
	t.Parallel()
	const why = "quorum device /dev/q: it belongs to another cluster (id x)"
	f := newFake(t)
	f.status.Driver.DeviceProblem = why
	f.submit = func(confdb.Command) (confdb.Result, error) { return confdb.Result{Code: "no_leader"}, nil }
	if code, text := ask(t, New(f), client.RoleAdmin, "PUT", client.PathCluster, testCluster()); code != 503 || !strings.Contains(text, why) {
		t.Errorf("%d, %s", code, text)
	}
	f.submit = func(confdb.Command) (confdb.Result, error) {
		return confdb.Result{Code: "unknown", Detail: "not seen committed"}, nil
	}
	if code, text := ask(t, New(f), client.RoleAdmin, "PUT", client.PathCluster, testCluster()); code != 503 || !strings.Contains(text, `"not seen committed`) {
		t.Errorf("%d, %s", code, text)
	}
}
