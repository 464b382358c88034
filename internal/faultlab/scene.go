package faultlab

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Scene is a definition whose failure matrix is held to the lab (Trial): nodes n1
// to nN, and groups that each have an address and a program that notes its starts.
type Scene struct {
	Name   string
	Nodes  int
	Groups []string
	Killed when // lost nodes are killed; else they are cut off
	text   func(Scene, string) string
}

// when says in which rows.
type when int

const (
	never when = iota
	byTurns
	always
)

// starts is the file in the definition's directory in which every program of a
// scene notes that it starts: group, node, nanoseconds since 1970.
const starts = "starts"

// address is the group's.
func (s Scene) address(group int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + group)})
}

// head is a definition up to its groups.
func head(name, cluster, nodes string) string {
	return fmt.Sprintf("provider \"local\" {\n  mode   = \"netns\"\n  subnet = \"10.77.0.0/24\"\n}\n\ncluster %q {\n%s}\n%s", name, cluster, nodes)
}

func node(name, more string) string {
	return fmt.Sprintf("\nnode %q {\n  provider = local\n%s}\n", name, more)
}

// group is a group with an address and a program, which fails over and is
// restarted as often as the lab likes.
func (s Scene) group(dir string, i int, more string) string {
	return fmt.Sprintf(`
group %q {
%s
  resource "ip_address" "vip" {
    address = "%s/24"
  }

  resource "generic_application" "app" {
    command    = ["sh", "-c", "echo $CLUSTERPLAN_GROUP $CLUSTERPLAN_NODE $(date +%%s%%N) >> %s; exec sleep 1000000"]
    depends_on = [resource.vip]

    restart {
      threshold = 1000000
    }
  }
}
`, s.Groups[i], more, s.address(i), filepath.Join(dir, starts))
}

const (
	majority  = "  quorum {\n    model = \"majority_node_set\"\n  }\n"
	over      = "  failover {\n    threshold = 1000000\n  }\n"
	homeAtOne = "  failback {\n    mode  = \"immediate\"\n    delay = \"1s\"\n  }\n"
)

// Scenes are definitions that differ in what decides where a group goes; the one
// with most rows is first.
func Scenes() []Scene {
	return []Scene{
		{
			// Zones of two, two and one; groups that are kept apart, softly and strictly,
			// one that stays down with its node, and room that runs out.
			Name: "zones", Nodes: 5, Groups: []string{"sql", "replica", "web", "queue", "archive"}, Killed: never,
			text: func(s Scene, dir string) string {
				nodes := ""
				for i, zone := range []string{"east", "east", "west", "west", "middle"} {
					nodes += node(fmt.Sprintf("n%d", i+1), fmt.Sprintf("  zone     = %q\n  capacity = { cpu = %d }\n", zone, []int{2, 2, 2, 2, 1}[i]))
				}
				return head(s.Name, majority, nodes) +
					s.group(dir, 0, "  preferred_owners = [node.n1, node.n3]\n  priority         = 3000\n  demand           = { cpu = 1 }\n"+over) +
					s.group(dir, 1, "  preferred_owners = [node.n3, node.n1]\n  keep_apart       = [group.sql]\n  demand           = { cpu = 1 }\n"+over) +
					s.group(dir, 2, "  preferred_owners = [node.n2, node.n4]\n  depends_on       = [group.sql]\n  demand           = { cpu = 2 }\n"+over) +
					s.group(dir, 3, "  preferred_owners = [node.n4, node.n2]\n  keep_apart_soft  = [group.web]\n  priority         = 1000\n  demand           = { cpu = 1 }\n"+over) +
					s.group(dir, 4, "  preferred_owners = [node.n5]\n  demand           = { cpu = 1 }\n  failover {\n    mode = \"none\"\n  }\n")
			},
		},
		{
			// Nobody votes: a node alone goes on, while it has the device. Without preferred
			// owners, for which a node waits that has just started and leads alone
			// (docs/runtime.md, a cluster's start): the matrix is of a cluster that runs.
			Name: "device", Nodes: 3, Groups: []string{"web", "mail"}, Killed: always,
			text: func(s Scene, dir string) string {
				return head(s.Name, fmt.Sprintf("  quorum {\n    model  = \"single_quorum\"\n    device = %q\n  }\n\n  heartbeat {\n    profile   = \"custom\"\n    device_io = \"100ms\"\n  }\n", filepath.Join(dir, device)),
					node("n1", "")+node("n2", "")+node("n3", "")) +
					s.group(dir, 0, over) +
					s.group(dir, 1, "  depends_on = [group.web]\n"+over)
			},
		},
		{
			// A spare too small for all, a dependency, and a group of low priority for
			// which there is no room then.
			Name: "spare", Nodes: 3, Groups: []string{"db", "app", "batch"}, Killed: byTurns,
			text: func(s Scene, dir string) string {
				return head(s.Name, "  configuration = \"hot_spare\"\n\n"+majority,
					node("n1", "  capacity = { cpu = 4 }\n")+node("n2", "  capacity = { cpu = 4 }\n")+node("n3", "  spare    = true\n  capacity = { cpu = 3 }\n")) +
					s.group(dir, 0, "  preferred_owners = [node.n1, node.n2]\n  priority         = 3000\n  demand           = { cpu = 3 }\n"+over+homeAtOne) +
					s.group(dir, 1, "  preferred_owners = [node.n2, node.n1]\n  depends_on       = [group.db]\n  demand           = { cpu = 2 }\n"+over+homeAtOne) +
					s.group(dir, 2, "  preferred_owners = [node.n2, node.n1]\n  priority         = 1000\n  demand           = { cpu = 2 }\n"+over+homeAtOne)
			},
		},
		{
			// Two nodes and a witness; one group goes on without a quorum, and is fenced
			// before another node has it.
			Name: "witness", Nodes: 3, Groups: []string{"web", "cache"}, Killed: always,
			text: func(s Scene, dir string) string {
				return head(s.Name, majority, node("n1", "")+node("n2", "")+node("n3", "  role = \"witness\"\n")) +
					"\nfence \"here\" {\n  agent = \"local\"\n}\n" +
					s.group(dir, 0, "  preferred_owners = [node.n1, node.n2]\n"+over) +
					s.group(dir, 1, "  preferred_owners = [node.n2, node.n1]\n  no_quorum        = \"freeze\"\n"+over)
			},
		},
	}
}

// device is the quorum device's file in the definition's directory.
const device = "quorum"

// SceneNamed finds a scene.
func SceneNamed(name string) (Scene, error) {
	var names []string
	for _, s := range Scenes() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Scene{}, fmt.Errorf("there is no scene %q; there are %s", name, strings.Join(names, ", "))
}
