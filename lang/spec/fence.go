package spec

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// FenceLocal is the built-in agent for nodes of provider local: it ends all
// that runs of a node on the leader's machine.
const FenceLocal = "local"

// Actions of a fence.
const (
	FenceOff    = "off"
	FenceReboot = "reboot" // off, verified, then on
)

// When a fence is used by itself.
const (
	FenceNeeded = "needed" // where the takeover wait alone frees no group
	FenceAlways = "always" // whenever a group waits for a lost node: to be faster
)

// Defaults and bounds of fences.
const (
	DefaultFenceTimeout = Duration(60 * time.Second)
	MaxFenceLevel       = 9 // as in Pacemaker
)

// Fence is a way to turn nodes off, and to know that they are. Devices of one
// level all have to succeed; levels are tried from the lowest.
type Fence struct {
	ID         string            `json:"id,omitempty"`
	Addr       addr.Address      `json:"addr"`
	Name       string            `json:"name"`
	Agent      string            `json:"agent"`           // FenceLocal, FenceLibvirt, fence_NAME, or an absolute path
	Nodes      []string          `json:"nodes,omitempty"` // node names; empty: every node
	Level      int               `json:"level"`           // 1 to MaxFenceLevel
	Delay      Duration          `json:"delay"`           // before the device is used
	Timeout    Duration          `json:"timeout"`         // of each call of the agent
	Action     string            `json:"action"`          // FenceOff or FenceReboot
	When       string            `json:"when"`            // FenceNeeded or FenceAlways
	Plugs      map[string]string `json:"plugs,omitempty"` // node name -> its outlet or machine at the device; default: the node's name, where the agent asks for one
	Parameters map[string]string `json:"parameters,omitempty"`
	// Sensitive are the names of parameters that are never shown.
	Sensitive []string `json:"sensitive_parameters,omitempty"`
	ManagedBy string   `json:"managed_by,omitempty"`
}

// Covers tells whether the fence can turn the node with that name off.
func (f *Fence) Covers(node string) bool {
	return len(f.Nodes) == 0 || slices.Contains(f.Nodes, node)
}

// Hidden is what stands for a parameter that is not shown.
const Hidden = "(sensitive)"

// IsSensitive tells whether a parameter is never shown.
func (f *Fence) IsSensitive(parameter string) bool {
	return slices.Contains(f.Sensitive, parameter) || SecretParameter(parameter)
}

// SecretParameter tells whether a parameter of a fence agent is a secret by
// its name, whatever the definition says (the names of Debian's fence-agents).
func SecretParameter(name string) bool {
	switch name {
	case FenceLibvirtKey, "password", "passwd", "snmp_priv_passwd", "snmp-priv-passwd", "secret_key", "apikey", "api_key", "token", "plug_password":
		return true
	}
	return strings.HasSuffix(name, "_password") || strings.HasSuffix(name, "_passwd") || strings.HasSuffix(name, "_secret")
}

// Shown is the fence without the values that are never shown.
func (f Fence) Shown() Fence {
	if len(f.Parameters) == 0 {
		return f
	}
	shown := make(map[string]string, len(f.Parameters))
	for name, value := range f.Parameters {
		if f.IsSensitive(name) {
			value = Hidden
		}
		shown[name] = value
	}
	f.Parameters = shown
	return f
}

// FenceLevels are the fences that cover a node, level by level from the
// lowest, each level in the order of names.
func FenceLevels(fences []*Fence, node string) [][]*Fence {
	var covering []*Fence
	for _, f := range fences {
		if f.Covers(node) {
			covering = append(covering, f)
		}
	}
	slices.SortFunc(covering, func(a, b *Fence) int {
		if a.Level != b.Level {
			return a.Level - b.Level
		}
		return strings.Compare(a.Name, b.Name)
	})
	var levels [][]*Fence
	for i, f := range covering {
		if i == 0 || covering[i-1].Level != f.Level {
			levels = append(levels, nil)
		}
		levels[len(levels)-1] = append(levels[len(levels)-1], f)
	}
	return levels
}

// FenceBound is the longest that turning a node off at these levels may take:
// every level in turn, its longest delay, then each device told twice, a second
// apart, and asked, each within its time-out; and told on, with action reboot.
func FenceBound(levels [][]*Fence) time.Duration {
	var sum time.Duration
	for _, level := range levels {
		var delay time.Duration
		for _, f := range level {
			delay = max(delay, f.Delay.D())
			t := f.Timeout
			if t == 0 {
				t = DefaultFenceTimeout
			}
			sum += 3*t.D() + time.Second
			if f.Action == FenceReboot {
				sum += 2*t.D() + time.Second
			}
		}
		sum += delay
	}
	return sum
}

// OutlivesLease tells whether something of the group may go on after its
// node's lease is over, so that waiting doesn't prove that it is down.
func (g *Group) OutlivesLease() bool {
	return g.NoQuorum == NoQuorumFreeze || len(g.NotHeld()) > 0
}

// FenceSchema is the shape of a fence block.
func FenceSchema() Schema {
	return Schema{
		Name: "fence",
		Doc:  "A device that turns nodes off, for where a lease alone can't tell that nothing runs any more.",
		Attributes: []Attribute{
			{Name: "name", Type: TypeString, KnownAtPlan: true, Impact: ImpactNone, Doc: "Unique among the fences; the label (label-key for an instance) unless it is given."},
			{Name: "agent", Type: TypeString, Required: true, KnownAtPlan: true, Impact: ImpactNone, Doc: "A ClusterLabs fence agent in /usr/sbin (fence_ipmilan) or by absolute path on every node; local, for nodes of provider local; or libvirt, for nodes that are virtual machines."},
			{Name: "nodes", Type: TypeNodeRefs, KnownAtPlan: true, Impact: ImpactNone, Doc: "Nodes that it turns off; default: every one."},
			{Name: "level", Type: TypeNumber, Default: int64(1), KnownAtPlan: true, Impact: ImpactNone, Doc: "1 to 9. Devices of one level all have to succeed; the next level is tried where one fails."},
			{Name: "delay", Type: TypeDuration, Default: "0s", KnownAtPlan: true, Impact: ImpactNone, Doc: "Waited before the device is used, the longest of its level; of the first level, a node that is back by then is left alone."},
			{Name: "timeout", Type: TypeDuration, Default: "1m", KnownAtPlan: true, Impact: ImpactNone, Doc: "Of each call of the agent."},
			{Name: "action", Type: TypeString, Default: FenceOff, Values: []string{FenceOff, FenceReboot}, KnownAtPlan: true, Impact: ImpactNone, Doc: "off; or reboot: off, verified, then on again."},
			{Name: "when", Type: TypeString, Default: FenceNeeded, Values: []string{FenceNeeded, FenceAlways}, KnownAtPlan: true, Impact: ImpactNone, Doc: "needed: only for groups that waiting does not free; always: for every group on a lost node, to be faster than the wait."},
			{Name: "plugs", Type: TypeStringMap, Impact: ImpactNone, Doc: "By node name, its outlet or machine at the device; default: the node's name, where the agent asks for one."},
			{Name: "parameters", Type: TypeStringMap, Impact: ImpactNone, Doc: "The agent's own, as its metadata lists them."},
			{Name: "sensitive_parameters", Type: TypeStrings, KnownAtPlan: true, Impact: ImpactNone, Doc: "Names of parameters that are never shown; those with sensitive values, and those that are passwords by name, are among them anyway."},
		},
	}
}

// fences checks the fences' rules.
func (c *checker) fences() {
	names := map[string]*addr.Address{}
	for i := range c.d.Fences {
		f := &c.d.Fences[i]
		c.name(&f.Addr, f.Name, names)
		switch {
		case f.Agent == FenceLocal:
			if len(f.Parameters) > 0 {
				c.add(f.Addr, "parameters", "Parameters of the local fence", "The built-in agent local takes none: it finds what runs of a node by itself. Remove parameters.")
			}
			if f.Action == FenceReboot {
				c.add(f.Addr, "action", "The local fence starts nothing", "The built-in agent local ends a node; clusterplan apply starts it again. Use action = \"off\".")
			}
			for j := range c.d.Nodes {
				if n := &c.d.Nodes[j]; f.Covers(n.Name) && n.Provider != "local" {
					c.add(f.Addr, "nodes", "The local fence is for local nodes", "Fence %s covers node %s of provider %s, and the built-in agent local can end nodes of provider local only. Name the nodes, or use another agent.", f.Name, n.Name, n.Provider)
				}
			}
		case f.Agent == FenceLibvirt:
			c.libvirtFence(f)
		case f.Agent == "":
		case strings.Contains(f.Agent, "/"):
			if !path.IsAbs(f.Agent) || path.Clean(f.Agent) != f.Agent {
				c.add(f.Addr, "agent", "Invalid fence agent", "%q is no absolute path. Write one as /usr/local/sbin/fence_mine, or the name of an agent in /usr/sbin.", f.Agent)
			}
		case !strings.HasPrefix(f.Agent, "fence_") || !ValidName(f.Agent):
			c.add(f.Addr, "agent", "Unknown fence agent", "%q is no fence agent. Write a name that begins with fence_, an absolute path, local or libvirt.", f.Agent)
		}
		if f.Level < 1 || f.Level > MaxFenceLevel {
			c.add(f.Addr, "level", "Invalid level", "A level is a number from 1 to %d, and this is %d. Fences of level 1 are tried first.", MaxFenceLevel, f.Level)
		}
		if f.Timeout < 0 || f.Timeout > 0 && f.Timeout < Duration(100*time.Millisecond) {
			c.add(f.Addr, "timeout", "Time-out is too short", "An agent needs time to answer. Use a time-out such as \"60s\".")
		}
		if f.Delay < 0 {
			c.add(f.Addr, "delay", "Negative delay", "A delay can't be negative. Use 0s or more.")
		}
		for _, name := range slices.Sorted(maps.Keys(f.Plugs)) {
			if n, ok := c.nodes[name]; !ok || !f.Covers(n.Name) {
				c.add(f.Addr, "plugs", "Plug of another node", "plugs names %q, which is no node that fence %s covers. Its keys are names of nodes: correct this one, or add the node to nodes.", name, f.Name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(f.Parameters)) {
			value := f.Parameters[name]
			if !validParameter(name) || f.Agent != FenceLibvirt && strings.ContainsAny(value, "\n\r\x00") {
				c.add(f.Addr, "parameters", "Invalid parameter", "Parameter %q can't be told to an agent: a name is letters, digits, _ and -, and a value is one line. Rename it, or write the value on one line.", name)
			}
			switch name {
			case "action", "option", "nodename":
				c.add(f.Addr, "parameters", "Parameter is not yours to set", "%s is set with each call. Remove it; action = \"off\" or \"reboot\" is an attribute of the fence.", name)
			}
		}
		if c.d.Cluster.Quorum.Model == SingleNode {
			c.warn(f.Addr, "", "Fence with one node", "A node never fences itself, and quorum model single_node has one, so that fence %s is never used. Remove it.", f.Name)
		}
	}
}

func validParameter(name string) bool {
	if name == "" || len(name) > 128 {
		return false
	}
	for i := range len(name) {
		b := name[i]
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '-') {
			return false
		}
	}
	return true
}

// Covered tells whether some fence covers every node that may own the group.
func (d *Definition) Covered(g *Group) bool {
	return len(d.Fences) > 0 && len(d.Nodes) > 0 && d.uncovered(g) == ""
}

// uncovered names the nodes that may own the group and that no fence covers.
func (d *Definition) uncovered(g *Group) string {
	var names []string
	for _, n := range d.Nodes {
		if !g.MayOwn(n) {
			continue
		}
		covered := false
		for i := range d.Fences {
			covered = covered || d.Fences[i].Covers(n.Name)
		}
		if !covered {
			names = append(names, n.Name)
		}
	}
	return strings.Join(names, ", ")
}
