package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// fenceMachines gives nodes on machines that no fence block covers one that goes
// through their provider's own connection to the hypervisor. It is an object as if
// it stood in the definition. Where the agents could not reach the hypervisor it is
// not made, and the diagnostics say why: no plan promises a fence that can't work.
func (d *Definition) fenceMachines() {
	if !slices.ContainsFunc(d.Providers, fencesMachines) {
		return
	}
	if c := d.ev.byAddr.At(addr.Cluster()); c == nil || c.value == cty.NilVal || modelOf(c.value) == spec.SingleNode {
		return // nobody is there to fence
	}
	var all []*instance
	for in := range d.ev.byAddr.All() {
		if in.value != cty.NilVal {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b *instance) int { return addr.Compare(a.addr, b.addr) })
	covered := map[string]bool{}
	for _, in := range all {
		if in.block.kind != addr.TypeFence {
			continue
		}
		names := namesOf(in.value.GetAttr("nodes"))
		if len(names) == 0 {
			return // it covers every node
		}
		for _, name := range names {
			covered[name] = true
		}
	}
	for _, p := range d.Providers {
		if !fencesMachines(p) {
			continue
		}
		f := machineFence{d: d, provider: p, plugs: map[string]cty.Value{}}
		for _, in := range all {
			if m := d.machineOf(in); m != nil && m.block.provider == p.Name && !covered[in.name] {
				f.nodes, f.plugs[in.name] = append(f.nodes, in), cty.StringVal(m.name)
			}
		}
		if len(f.nodes) > 0 {
			f.make()
		}
	}
}

// fencesMachines tells whether a provider says how agents have machines turned off.
func fencesMachines(p Provider) bool { return p.Config.Type().HasAttribute(addr.TypeFence) }

// machineOf is the one machine that a node runs on, by its address or SSH host; nil:
// none, or it can't be told. What else it says of a machine doesn't put it there: a
// fence would turn that one off, and take the node for off.
func (d *Definition) machineOf(in *instance) *instance {
	if in.block.kind != addr.TypeNode {
		return nil
	}
	var edges []Edge
	from := func(b *body, name string) {
		for i := range b.attrs {
			if a := &b.attrs[i]; a.Name == name && a.expr != nil && !a.expr.bad {
				edges = append(edges, in.ev.exprEdges(a.expr, in)...)
			}
		}
	}
	from(in.block.body, "address")
	for i := range in.block.body.blocks {
		if n := &in.block.body.blocks[i]; n.Name == "ssh" && n.body != nil {
			from(n.body, "host")
		}
	}
	var m *instance
	for _, e := range edges {
		if e.To.Type != addr.TypeMachine {
			continue
		}
		at := d.ev.byAddr.At(e.To)
		if at == nil || at.broken || m != nil && m != at {
			return nil
		}
		m = at
	}
	return m
}

// machineFence is the fence of nodes on one provider's machines.
type machineFence struct {
	d        *Definition
	provider Provider
	nodes    []*instance
	plugs    map[string]cty.Value
}

func (f *machineFence) make() {
	ev := f.d.ev
	config, _ := f.provider.Config.UnmarkDeep()
	asked := config.GetAttr(addr.TypeFence)
	if !config.IsWhollyKnown() || asked.GetAttr("enabled").False() {
		return
	}
	parameters, values, given := map[string]string{}, map[string]cty.Value{}, false
	secret := f.provider.Config.GetAttr(addr.TypeFence)
	for _, name := range []string{spec.FenceLibvirtURI, spec.FenceLibvirtKey, spec.FenceLibvirtHostKey, spec.FenceLibvirtCert, spec.FenceLibvirtCA} {
		if v := asked.GetAttr(name); !v.IsNull() {
			parameters[name], given = v.AsString(), true
			unmarked, marks := secret.Unmark()
			values[name] = unmarked.GetAttr(name).WithMarks(marks)
		}
	}
	_, own := parameters[spec.FenceLibvirtURI]
	if !own {
		uri := config.GetAttr("uri")
		parameters[spec.FenceLibvirtURI], values[spec.FenceLibvirtURI] = uri.AsString(), f.provider.Config.GetAttr("uri")
	}
	where := f.nodes[0].block.rng
	if decl := ev.c.providers[f.provider.Name]; decl != nil {
		where = decl.rng
	}
	at := addr.Address{Type: addr.TypeFence, Name: spec.FenceMachines}
	access := spec.HypervisorAccess{Parameters: parameters, Elsewhere: !own, Secret: schema.IsSensitive(values[spec.FenceLibvirtURI])}
	if why := access.Lacks(); why != "" {
		severity := hcl.DiagError
		if !given {
			severity = hcl.DiagWarning
		}
		names := make([]string, len(f.nodes))
		for i, in := range f.nodes {
			names[i] = in.name
		}
		ev.add(&hcl.Diagnostic{Severity: severity, Subject: &where, Summary: "Nodes on machines without a fence",
			Detail: fmt.Sprintf("Nothing can turn off the nodes on machines (%s): %s. In a block fence of provider %q, write uri with the hypervisor's address on the nodes' network, and private_key and host_key (qemu+ssh://USER@ADDRESS/system), or private_key, certificate and ca_certificate (qemu+tls://ADDRESS/system); or write a fence block that covers these nodes; or enabled = false where leases are enough.", strings.Join(names, ", "), why, f.provider.Name)})
		return
	}
	if other := ev.byAddr.At(at); other != nil {
		ev.add(errorAt(other.block.rng, "Fence with the name of the default one", fmt.Sprintf("Fence %s is what nodes on machines have where no fence block covers them, and there are such. Rename this one, or have it cover them as well.", at)))
		return
	}
	f.add(at, where, values, asked)
}

// add puts the fence among what the definition has.
func (f *machineFence) add(at addr.Address, where hcl.Range, parameters map[string]cty.Value, asked cty.Value) {
	ev := f.d.ev
	s := ev.c.schemas.fence
	// As of a provider, whose shape is not kept: a Config is not written any more.
	b, _, _ := ev.c.compileBody("provider", hcl.EmptyBody(), s.Attributes, s.Blocks, &hcl.BodySchema{})
	in := &instance{ev: ev, addr: at, name: at.Name, block: &block{kind: addr.TypeFence, name: at.Name, rng: where, schema: s, body: b}}
	in.attrs = ev.bodyValues(b, in, cty.NilVal)
	var nodes []cty.Value
	for _, n := range f.nodes {
		nodes = append(nodes, cty.StringVal(n.name))
		in.deps = append(in.deps, Edge{To: n.addr})
	}
	in.attrs["agent"], in.attrs["nodes"] = cty.StringVal(spec.FenceLibvirt), cty.ListVal(nodes)
	in.attrs["plugs"], in.attrs["parameters"] = cty.MapVal(f.plugs), cty.MapVal(parameters)
	for _, name := range []string{"when", "delay", "action"} {
		in.attrs[name] = asked.GetAttr(name)
	}
	ev.defaults(in)
	in.value, in.attrs = cty.ObjectVal(in.attrs), nil
	ev.byAddr.Put(in)
}

// namesOf are the strings of a list, as far as they are known.
func namesOf(v cty.Value) []string {
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() || v.IsNull() {
		return nil
	}
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		out = append(out, e.AsString())
	}
	return out
}

// modelOf is the quorum model of a cluster's value.
func modelOf(cluster cty.Value) spec.QuorumModel {
	v, _ := cluster.UnmarkDeep()
	q := v.GetAttr("quorum")
	if !q.IsKnown() || q.IsNull() || !q.GetAttr("model").IsKnown() || q.GetAttr("model").IsNull() {
		return ""
	}
	return spec.QuorumModel(q.GetAttr("model").AsString())
}
