package agent_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Two real agents and one file: the owner dies, the other takes over alone and
// stays alone; the device is taken away, so that the groups stop, and comes
// back, so that they start; the first node returns and catches up.
func TestQuorumDevice(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.device = filepath.Join(t.TempDir(), "quorum")
	admin := r.form(spec.SingleQuorum)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	if by := r.answers("", ""); by != "n1" {
		t.Fatalf("the group runs on %s, not on its preferred owner", by)
	}
	st := r.settled(admin, func(s client.Status) string {
		if s.Leader == "" || s.Quorum.Up != 2 {
			return "not both up"
		}
		return ""
	})
	if st.Quorum.Needed != 1 || st.Quorum.Device != r.device || st.Quorum.DeviceProblem != "" {
		t.Errorf("quorum: %+v", st.Quorum)
	}
	first := r.node(st.Leader)
	other := r.nodes[0]
	if other == first {
		other = r.nodes[1]
	}

	first.kill()
	r.answers(other.name, "")
	alone := r.client(client.RoleAdmin, other.endpoint)
	r.settled(alone, func(s client.Status) string {
		if s.Leader != other.name || !s.Quorum.Have {
			return "the survivor doesn't lead"
		}
		return ""
	})

	// The device is gone: the node's own deadline stops the group.
	away := r.device + ".away"
	if err := os.Rename(r.device, away); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		conn, err := net.DialTimeout("tcp", r.web, time.Second)
		if err == nil {
			conn.Close()
			return "the group answers still, without the device"
		}
		return ""
	})
	r.settled(alone, func(s client.Status) string {
		if s.Quorum.Have || !strings.HasPrefix(s.Quorum.DeviceProblem, "quorum device "+r.device+": ") {
			return "the status doesn't say that the device is lost: " + s.Quorum.DeviceProblem
		}
		return ""
	})
	if err := os.Rename(away, r.device); err != nil {
		t.Fatal(err)
	}
	r.answers(other.name, "")
	eventually(t, func() string {
		list, err := alone.Events(r.ctx(), 0)
		if err != nil {
			return err.Error()
		}
		for _, e := range list {
			if e.Kind == "quorum_device_back" {
				return ""
			}
		}
		return "no event says that the device was lost"
	})

	first.start(t)
	r.settled(admin, func(s client.Status) string {
		if s.Quorum.Up != 2 {
			return "the first node is not back"
		}
		return ""
	})
	if _, err := admin.PutCluster(r.ctx(), spec.Cluster{ID: r.id.ID, Name: "test", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}, 0); err == nil || !strings.Contains(err.Error(), "single_quorum") {
		t.Errorf("the quorum model was changed under way: %v", err)
	}
	if _, err := admin.Move(r.ctx(), r.webGroup().ID, client.Order{Node: first.name}); err != nil {
		t.Fatal(err)
	}
	r.answers(first.name, "")
	for _, n := range r.nodes { // n2 has sent frames before it was asked to take part
		log, err := os.ReadFile(filepath.Join(n.dir, "agent.log"))
		if err != nil || strings.Contains(string(log), "a frame can't be sealed") {
			t.Errorf("the log of %s (%v) tells of frames that it could not send:\n%s", n.name, err, log)
		}
	}
}

// A bootstrap on a device that another cluster has used is refused with the reason,
// and the same agent can be bootstrapped again: on the emptied device, or with
// another quorum model. An agent that was a member takes no emptied device afresh,
// not even after a restart, when nothing but its directory tells that it was one.
func TestBootstrapOnAUsedDevice(t *testing.T) {
	t.Parallel()
	gone := newRig(t, 1)
	gone.device = filepath.Join(t.TempDir(), "quorum")
	gone.form(spec.SingleQuorum)
	gone.nodes[0].kill()

	r := newRig(t, 2)
	n1, n2 := r.nodes[0], r.nodes[1]
	n1.start(t)
	n2.start(t)
	admin := r.client(client.RoleAdmin)
	bootstrap := func(n *nodeRig, q spec.Quorum, refused string) {
		t.Helper()
		cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: q, Heartbeat: calm}
		_, err := admin.Bootstrap(r.ctx(), n.endpoint, client.Bootstrap{Cluster: cl, Member: r.request(n)})
		var e *client.Error
		switch {
		case refused == "" && err != nil:
			t.Fatal(err)
		case refused != "" && (!errors.As(err, &e) || e.Code != "bad_request" || !strings.Contains(e.Message, "quorum device "+gone.device+": "+refused)):
			t.Fatalf("not refused for %q: %v", refused, err)
		}
	}
	device := spec.Quorum{Model: spec.SingleQuorum, Device: gone.device}
	bootstrap(n1, device, "it belongs to another cluster (id "+gone.id.ID+")")
	bootstrap(n2, device, "it belongs to another cluster (id "+gone.id.ID+")")
	if err := os.Remove(gone.device); err != nil {
		t.Fatal(err)
	}
	bootstrap(n1, device, "")
	bootstrap(n1, device, "") // sent again

	n1.kill()
	n1.monitorsGone()
	if err := os.Remove(gone.device); err != nil {
		t.Fatal(err)
	}
	n1.start(t)
	const lost = "it is not what it was: this node is a member of a cluster whose database it held"
	if self := r.self(n1); self.Membership != "unread" { // a provider asks it before it makes another node the first
		t.Errorf("a former member is %q", self.Membership)
	}
	bootstrap(n1, device, lost)
	bootstrap(n1, spec.Quorum{Model: spec.MajorityNodeSet}, lost)
	if _, err := os.Stat(gone.device); err == nil {
		t.Error("it made the device anew")
	}

	bootstrap(n2, spec.Quorum{Model: spec.MajorityNodeSet}, "")
	n2.kill() // what it is stands in its directory
	n2.start(t)
	r.settled(r.client(client.RoleAdmin, n2.endpoint), func(s client.Status) string {
		if s.Leader != n2.name || s.Quorum.Model != spec.MajorityNodeSet {
			return "n2 doesn't lead"
		}
		return ""
	})
}

// A bootstrap that was cut off once its database was there is gone on with; with
// another quorum model or device it is refused, for that database is not its.
func TestBootstrapCutOffAndChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	n := r.nodes[0]
	n.start(t)
	r.device = filepath.Join(t.TempDir(), "quorum")
	admin := r.client(client.RoleAdmin)
	first := spec.Quorum{Model: spec.SingleQuorum, Device: r.device}
	bootstrap := func(ctx context.Context, q spec.Quorum) error {
		cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: q, Heartbeat: calm}
		_, err := admin.Bootstrap(ctx, n.endpoint, client.Bootstrap{Cluster: cl, Member: r.request(n)})
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx())
	cut := make(chan error, 1)
	go func() { cut <- bootstrap(ctx, first) }()
	eventually(t, func() string { // until a sector is written: it has its slot
		if info, err := os.Stat(r.device); err != nil || info.Size() <= 4096 {
			return "nothing behind the header"
		}
		return ""
	})
	cancel()
	if err := <-cut; err == nil {
		t.Fatal("it was not cut off")
	}
	for _, q := range []spec.Quorum{{Model: spec.MajorityNodeSet}, {Model: spec.SingleNode}, {Model: spec.SingleQuorum, Device: r.device + "2"}} {
		var e *client.Error
		if err := bootstrap(r.ctx(), q); !errors.As(err, &e) || e.Code != "bad_request" || !strings.Contains(e.Message, "single_quorum on "+r.device+",") {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := bootstrap(r.ctx(), first); err != nil {
		t.Error(err)
	}
}

// A node whose bootstrap was refused takes part in the cluster that another node
// is the first of, whatever its quorum model, also after a restart.
func TestRefusedBootstrapThenJoins(t *testing.T) {
	t.Parallel()
	for _, model := range []spec.QuorumModel{spec.MajorityNodeSet, spec.SingleQuorum} {
		t.Run(string(model), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			n1, n2 := r.nodes[0], r.nodes[1]
			n1.start(t)
			n2.start(t)
			admin := r.client(client.RoleAdmin)
			dir := t.TempDir()
			used := filepath.Join(dir, "used")
			if err := os.WriteFile(used, []byte("something else"), 0o600); err != nil {
				t.Fatal(err)
			}
			bootstrap := func(n *nodeRig, q spec.Quorum) error {
				cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: q, Heartbeat: calm}
				_, err := admin.Bootstrap(r.ctx(), n.endpoint, client.Bootstrap{Cluster: cl, Member: r.request(n)})
				return err
			}
			if err := bootstrap(n1, spec.Quorum{Model: spec.SingleQuorum, Device: used}); err == nil {
				t.Fatal("it was not refused")
			}
			n1.kill()
			n1.start(t)
			q := spec.Quorum{Model: model}
			if model == spec.SingleQuorum {
				q.Device = filepath.Join(dir, "quorum")
			}
			if err := bootstrap(n2, q); err != nil {
				t.Fatal(err)
			}
			r.join(admin, n1)
		})
	}
}
