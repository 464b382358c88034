package lang

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// check turns the broken semantic rules into diagnostics. What may only be
// broken because of another error isn't told: rules about an object that had
// one, and about the whole cluster if any object had one.
func (d *Definition) check() hcl.Diagnostics {
	c := d.ev.c
	if c.unsound || c.cluster == nil {
		return nil
	}
	broken := false
	for _, ev := range d.ev.all {
		broken = broken || len(ev.broken) > 0
		for _, is := range ev.blocks {
			if is.unknown {
				return nil
			}
		}
		for _, mi := range ev.modules {
			if mi.unknown {
				return nil
			}
		}
	}
	diags := d.checkMachinery()
	for _, p := range spec.Check(d.spec) {
		if in := d.ev.byAddr.At(p.Addr); in != nil && in.broken || p.Addr == addr.Cluster() && broken {
			continue
		}
		if o, ok := d.Object(p.Addr); ok && p.Addr.Type == addr.TypeFence && p.Attribute != "" && !o.Value.GetAttr(p.Attribute).IsWhollyKnown() {
			continue // only an apply knows it: the cluster looks at it then
		}
		diags = append(diags, d.Diagnostic(p))
	}
	return diags
}

// checkMachinery checks the names of machines, networks and volumes, which tell
// their provider which is which.
func (d *Definition) checkMachinery() hcl.Diagnostics {
	var diags hcl.Diagnostics
	type key struct{ provider, typ, name string }
	first := map[key]addr.Address{}
	for i := range d.Objects {
		o := &d.Objects[i]
		if !addr.Machinery(o.Addr.Type) || d.ev.byAddr.At(o.Addr).broken {
			continue
		}
		name := d.ev.byAddr.At(o.Addr).name
		if !spec.ValidName(name) {
			diags = append(diags, errorAt(*o.rangeOf("name"), "Invalid name", fmt.Sprintf("%q can't be the name of a %s. Use letters, digits, . _ and -, a letter or digit first, 64 at most; set name, or choose other keys.", name, o.Addr.Type)))
		}
		k := key{o.Provider, o.Addr.Type, name}
		if other, ok := first[k]; ok {
			diags = append(diags, errorAt(*o.rangeOf("name"), "Duplicate name", fmt.Sprintf("%s and %s are both named %q. Set name on one of them.", other, o.Addr, name)))
			continue
		}
		first[k] = o.Addr
	}
	return diags
}

// Diagnostic gives a problem the range of what it is about.
func (d *Definition) Diagnostic(p spec.Problem) *hcl.Diagnostic {
	out := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: p.Summary, Detail: p.Detail}
	if p.Warning {
		out.Severity = hcl.DiagWarning
	}
	if o, ok := d.described(p.Addr); ok {
		out.Subject = o.rangeOf(p.Attribute)
		if o.sensitiveAt(p.Attribute) {
			out.Detail = p.Attribute + " is sensitive, so it isn't shown, and neither is what is wrong with it in particular. Look at it yourself, or put nonsensitive() around it for a while."
		}
	}
	if len(p.Cycle) > 0 {
		var b strings.Builder
		b.WriteString(p.Detail)
		for i, a := range p.Cycle {
			next := p.Cycle[(i+1)%len(p.Cycle)]
			where := ""
			if o, ok := d.Object(a); ok {
				where = fmt.Sprintf(", at %s", o.rangeOf(p.Attribute))
			}
			fmt.Fprintf(&b, "\n  %s depends on %s%s", a, next, where)
		}
		out.Detail = b.String()
	}
	return out
}

// described is an object, or a guarantee, by its address.
func (d *Definition) described(a addr.Address) (*Object, bool) {
	if a.Type != addr.TypeGuarantee {
		return d.Object(a)
	}
	for i := range d.Guarantees {
		if d.Guarantees[i].Addr == a {
			return &d.Guarantees[i], true
		}
	}
	return nil, false
}

// rangeOf is where an attribute stands, or the nearest thing around it.
func (o *Object) rangeOf(attribute string) *hcl.Range {
	ranges := o.block.ranges()
	for name := attribute; name != ""; {
		if r, ok := ranges[name]; ok {
			return &r
		}
		i := strings.LastIndexByte(name, '.')
		name = name[:max(i, 0)]
	}
	r := o.block.rng
	return &r
}

// sensitiveAt tells whether the attribute at a path such as "is_alive.http" is sensitive.
func (o *Object) sensitiveAt(attribute string) bool {
	v := o.Value
	for _, name := range strings.Split(attribute, ".") {
		if v.IsMarked() || !v.IsKnown() || v.IsNull() || !v.Type().IsObjectType() || !v.Type().HasAttribute(name) {
			break
		}
		v = v.GetAttr(name)
	}
	return attribute != "" && schema.IsSensitive(v)
}

// endpointOf joins a node's address and port as far as they are known.
func endpointOf(v cty.Value) string {
	host, port := "", ""
	switch a, _ := v.GetAttr("address").Unmark(); {
	case !a.IsKnown():
		return "" // whatever its port is
	case !a.IsNull():
		host = a.AsString()
	}
	if p, _ := v.GetAttr("port").Unmark(); p.IsKnown() && !p.IsNull() {
		port = p.AsBigFloat().Text('f', 0)
	}
	if port == "" {
		return host
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + host + "]:" + port
	}
	if strings.Contains(host, ":") {
		return host // has one already
	}
	return host + ":" + port
}
