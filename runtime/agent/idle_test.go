package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// An idle leader lets answers wait, an update or a node that is lost ends that, and
// it comes again. Leases go on all the while.
func TestIdleLeader(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.timings = spec.Timings{}.WithDefaults() // the others' interval is one that no frame may wait for
	admin := r.form(spec.MajorityNodeSet)
	leader := r.node(r.settled(admin, allUp).Leader)
	waits := func(word string, least int) {
		t.Helper()
		eventually(t, func() string {
			log, err := os.ReadFile(filepath.Join(leader.dir, "agent.log"))
			if err != nil {
				return err.Error()
			}
			if strings.Count(string(log), word) < least {
				return word + " is not in the leader's log often enough"
			}
			return ""
		})
	}
	waits(agent.FramesWait, 1)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	waits(agent.FramesWake, 1)
	r.answers("", "")
	r.settled(admin, allUp)
	waits(agent.FramesWait, 2)
	for _, n := range r.nodes {
		if n != leader {
			n.kill()
			r.settled(admin, func(s client.Status) string {
				for _, st := range s.Nodes {
					if st.Name == n.name && st.State != spec.NodeDown {
						return n.name + " was killed and is " + st.State
					}
				}
				return ""
			})
			waits(agent.FramesWake, 2)
			n.start(t)
			break
		}
	}
	r.settled(admin, allUp)
	waits(agent.FramesWait, 3)
}
