package run

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// While a node is replaced, two agents have its name: the member's processes are those of
// the agent at the member's address, whichever the state names first.
func TestStatusOfReplacedNode(t *testing.T) {
	entry := func(name, id, endpoint string) providers.Entry {
		return providers.Entry{NodeID: id, Endpoint: endpoint, Spec: spec.Node{Name: name}, Name: name}
	}
	self := func(pid int) *client.Self {
		return &client.Self{PID: pid, Membership: "waiting", NoReset: fmt.Sprint("reset ", pid), NotReady: fmt.Sprint("ready ", pid)}
	}
	for name, c := range map[string]struct {
		nodes []providers.Entry
		self  []*client.Self
		want  []string
	}{
		"new one last":           {[]providers.Entry{entry("n1", "a", "127.0.0.1:1"), entry("n1", "b", "127.0.0.1:9"), entry("n2", "c", "127.0.0.1:2")}, []*client.Self{self(1), self(9), self(2)}, []string{"n1 up 1", "n1 unknown 9", "n2 up 2"}},
		"new one first":          {[]providers.Entry{entry("n1", "a", "127.0.0.1:9"), entry("n1", "b", "127.0.0.1:1"), entry("n2", "c", "127.0.0.1:2")}, []*client.Self{self(9), self(1), self(2)}, []string{"n1 up 1", "n1 unknown 9", "n2 up 2"}},
		"member says nothing":    {[]providers.Entry{entry("n1", "a", "127.0.0.1:9"), entry("n1", "b", "127.0.0.1:1"), entry("n2", "c", "127.0.0.1:2")}, []*client.Self{self(9), nil, self(2)}, []string{"n1 up 0", "n1 unknown 9", "n2 up 2"}},
		"member's other address": {[]providers.Entry{entry("n1", "a", "127.0.0.1:7"), entry("n2", "c", "127.0.0.1:2")}, []*client.Self{self(7), self(2)}, []string{"n1 up 7", "n2 up 2"}},
		"both are members":       {[]providers.Entry{entry("n1", "a", "127.0.0.1:1"), entry("n1", "b", "127.0.0.1:3"), entry("n2", "c", "127.0.0.1:2")}, []*client.Self{self(1), self(3), self(2)}, []string{"n1 up 1", "n1-b up 3", "n2 up 2"}},
	} {
		status := client.Status{Nodes: []client.StatusNode{{Name: "n1", State: spec.NodeUp, Address: "127.0.0.1:1"}, {Name: "n2", State: spec.NodeUp, Address: "127.0.0.1:2"}}}
		if name == "both are members" {
			status.Nodes = append(status.Nodes, client.StatusNode{Name: "n1-b", State: spec.NodeUp, Address: "127.0.0.1:3"})
		}
		addSelves(&status, c.nodes, c.self)
		var got []string
		for _, n := range status.Nodes {
			got = append(got, fmt.Sprintf("%s %s %d", n.Name, n.State, n.PID))
			if n.PID != 0 && (n.NoReset != fmt.Sprint("reset ", n.PID) || n.NotReady != fmt.Sprint("ready ", n.PID)) {
				t.Errorf("%s: %s of pid %d: %s, %s", name, n.Name, n.PID, n.NoReset, n.NotReady)
			}
			if n.State == spec.NodeUnknown && !strings.Contains(n.Reason, "not a member of the cluster: waiting") {
				t.Errorf("%s: %s: %s", name, n.Name, n.Reason)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
