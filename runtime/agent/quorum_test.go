package agent_test

import (
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
}
