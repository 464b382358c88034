package plannertest

import (
	"context"
	"fmt"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Machinery is a machine, network or volume.
type Machinery struct {
	Addr  addr.Address
	Value cty.Value
	Off   bool // a machine that does not run
}

// hypervisor is the provider of machines, networks and volumes. Where the name of
// a node's address is that of a machine, the node is on it: unreachable while the
// machine is off or gone, and it is a violation to take the machine from under a
// running agent.
type hypervisor World

func (p *hypervisor) Schema() providers.Schema {
	network := spec.Schema{Name: addr.TypeNetwork, Attributes: []spec.Attribute{
		{Name: "mode", Type: spec.TypeString, Default: "nat", Values: []string{"nat", "isolated", "bridge"}, Impact: spec.ImpactReplace},
		{Name: "subnet", Type: spec.TypeString, Impact: spec.ImpactReplace},
		{Name: "bridge", Type: spec.TypeString, Computed: true},
	}}
	volume := spec.Schema{Name: addr.TypeVolume, Attributes: []spec.Attribute{
		{Name: "pool", Type: spec.TypeString, Default: "default", Impact: spec.ImpactReplace},
		{Name: "base", Type: spec.TypeString, Impact: spec.ImpactReplace},
		{Name: "size", Type: spec.TypeSize, Required: true, Impact: spec.ImpactNone},
	}}
	machine := spec.Schema{Name: addr.TypeMachine, Attributes: []spec.Attribute{
		{Name: "memory", Type: spec.TypeSize, Default: "256MiB", Impact: spec.ImpactReboot},
		{Name: "vcpus", Type: spec.TypeNumber, Default: int64(1), Impact: spec.ImpactReboot},
		{Name: "image", Type: spec.TypeString, Impact: spec.ImpactReplace},
		{Name: "autostart", Type: spec.TypeBool, Default: false, Impact: spec.ImpactNone},
		{Name: "network", Type: spec.TypeNetworkRef, Required: true, Impact: spec.ImpactReplace},
		{Name: "disks", Type: spec.TypeVolumeRefs, Impact: spec.ImpactReplace},
		{Name: "address", Type: spec.TypeString, Computed: true},
		{Name: "mac", Type: spec.TypeString, Computed: true},
	}}
	return providers.Schema{Config: spec.Schema{Name: "hypervisor"}, Objects: map[string]spec.Schema{
		addr.TypeNetwork: network.WithIdentity(), addr.TypeVolume: volume.WithIdentity(), addr.TypeMachine: machine.WithIdentity(),
	}}
}
func (p *hypervisor) Configure(cty.Value, providers.Env) error { return nil }
func (p *hypervisor) Close() error                             { return nil }

const healthOff = "machine off"

func (p *hypervisor) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	if req.Config == cty.NilVal {
		return providers.PlanResponse{Phases: []string{providers.PhaseDelete}}, nil
	}
	attrs := req.Config.AsValueMap()
	for _, a := range p.Schema().Objects[req.Type].Attributes {
		switch {
		case !a.Computed:
		case req.Prior != nil && req.Prior.Value != cty.NilVal:
			attrs[a.Name] = req.Prior.Value.GetAttr(a.Name)
		default:
			attrs[a.Name] = cty.UnknownVal(cty.String)
		}
	}
	resp := providers.PlanResponse{Planned: cty.ObjectVal(attrs), Phases: []string{providers.PhaseCreate}}
	if req.Prior != nil && req.Prior.Value != cty.NilVal {
		resp.Phases, resp.Drift = nil, req.Prior.Health
		if len(resp.Drift) > 0 || !req.Prior.Value.RawEquals(resp.Planned) {
			resp.Phases = []string{providers.PhaseUpdate}
		}
		if len(resp.Drift) > 0 {
			resp.Impact = spec.ImpactReboot
		}
	}
	return resp, nil
}

func (p *hypervisor) Read(_ context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Hidden != nil {
		return providers.ReadResponse{}, w.Hidden
	}
	m := w.Machinery[req.ID]
	if m == nil {
		return providers.ReadResponse{}, nil
	}
	o := &providers.Object{ID: req.ID, Value: m.Value}
	if m.Off {
		o.Health = []string{healthOff}
	}
	return providers.ReadResponse{Object: o}, nil
}

// Import finds what there is by its id or its name.
func (p *hypervisor) Import(ctx context.Context, req providers.ImportRequest) (providers.ImportResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	id := ""
	for _, one := range sorted(w.Machinery) {
		if m := w.Machinery[one]; m.Addr.Type == req.Type && (one == req.ID || m.Value.GetAttr("name").RawEquals(cty.StringVal(req.ID))) {
			id = one
		}
	}
	w.mu.Unlock()
	if id == "" {
		return providers.ImportResponse{}, fmt.Errorf("no %s is %q", req.Type, req.ID)
	}
	read, err := p.Read(ctx, providers.ReadRequest{Addr: req.Addr, Type: req.Type, ID: id})
	return providers.ImportResponse{Object: read.Object}, err
}

func (p *hypervisor) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	call := Call{req.Addr, req.ID, req.Phase}
	if err := w.begin(call); err != nil {
		return providers.ApplyResponse{}, err
	}
	if err := ctx.Err(); err != nil {
		return providers.ApplyResponse{}, err
	}
	m := w.Machinery[req.ID]
	var resp providers.ApplyResponse
	switch req.Phase {
	case providers.PhaseDelete:
		if m != nil {
			w.unused(m, "is deleted")
			w.lose(req.ID, true)
			delete(w.Machinery, req.ID)
		}
		return resp, w.end(call)
	case providers.PhaseCreate:
		if m == nil {
			w.made[req.ID]++
			m = &Machinery{Addr: req.Addr, Value: w.fresh(req)}
			w.Machinery[req.ID] = m
		}
		w.rests(req)
	case providers.PhaseUpdate:
		if m == nil {
			return resp, fmt.Errorf("%s is not there", req.Addr)
		}
		if m.Off || m.Addr.Type == addr.TypeMachine && Reboots(m.Value, req.Planned) {
			if !m.Off {
				w.unused(m, "reboots")
			}
			w.lose(req.ID, w.Diskless)
			m.Off = false
		}
		m.Addr, m.Value = req.Addr, req.Planned
	default:
		return resp, fmt.Errorf("a %s has no phase %q", req.Type, req.Phase)
	}
	resp.Object = &providers.Object{ID: req.ID, Value: m.Value}
	return resp, w.end(call)
}

// Reboots tells whether a change of a machine in place reboots it.
func Reboots(was, is cty.Value) bool {
	return !was.GetAttr("memory").RawEquals(is.GetAttr("memory")) || !was.GetAttr("vcpus").RawEquals(is.GetAttr("vcpus"))
}

// fresh is the value of what is made, with what only is known then.
func (w *World) fresh(req providers.ApplyRequest) cty.Value {
	for id, other := range w.Machinery {
		if other.Addr.Type == req.Type && other.Value.GetAttr("name").RawEquals(req.Planned.GetAttr("name")) {
			w.violate("%s was made twice: %s and %s", req.Addr, id, req.ID)
		}
	}
	attrs := req.Planned.AsValueMap()
	switch req.Type {
	case addr.TypeNetwork:
		attrs["bridge"] = cty.StringVal(fmt.Sprintf("br%d", len(w.made)))
	case addr.TypeMachine:
		w.leases++
		attrs["address"] = cty.StringVal(fmt.Sprintf("10.0.0.%d", w.leases))
		attrs["mac"] = cty.StringVal(fmt.Sprintf("52:54:00:00:00:%02x", w.leases))
		w.at[attrs["address"].AsString()] = req.ID
	}
	return cty.ObjectVal(attrs)
}

// rests: what a machine names has to be there when it is made.
func (w *World) rests(req providers.ApplyRequest) {
	if !req.Planned.IsWhollyKnown() {
		known := req.Planned.AsValueMap()
		for _, a := range (*hypervisor)(w).Schema().Objects[req.Type].Attributes {
			if !a.Computed && !known[a.Name].IsWhollyKnown() {
				w.violate("%s was made with %s unknown", req.Addr, a.Name)
			}
		}
	}
	if req.Type != addr.TypeMachine {
		return
	}
	names := []cty.Value{req.Planned.GetAttr("network")}
	names = append(names, req.Planned.GetAttr("disks").AsValueSlice()...)
	for _, name := range names {
		found := false
		for _, m := range w.Machinery {
			found = found || m.Addr.Type != addr.TypeMachine && m.Value.GetAttr("name").RawEquals(name)
		}
		if !found {
			w.violate("%s was made without %s", req.Addr, name.AsString())
		}
	}
}

// unused: nothing may run on what goes or reboots.
func (w *World) unused(m *Machinery, how string) {
	if m.Addr.Type != addr.TypeMachine {
		for _, other := range w.Machinery {
			if other.Addr.Type != addr.TypeMachine {
				continue
			}
			for _, name := range append([]cty.Value{other.Value.GetAttr("network")}, other.Value.GetAttr("disks").AsValueSlice()...) {
				if name.RawEquals(m.Value.GetAttr("name")) {
					w.violate("%s %s while %s is on it", m.Addr, how, other.Addr)
				}
			}
		}
		return
	}
	for _, h := range w.Hosts {
		if h.Running && !m.Off && addressOf(h.Value).RawEquals(m.Value.GetAttr("address")) {
			w.violate("%s %s while the agent of %s runs on it", m.Addr, how, h.Value.GetAttr("name").AsString())
		}
	}
}

func addressOf(v cty.Value) cty.Value {
	if v == cty.NilVal {
		return cty.NullVal(cty.String)
	}
	a := v.GetAttr("address")
	if !a.IsKnown() {
		return cty.NullVal(cty.String)
	}
	return a
}

// lose ends what runs on a machine; wholly: its disk is gone as well.
func (w *World) lose(id string, wholly bool) {
	for node, h := range w.Hosts {
		if a := addressOf(h.Value); !a.IsNull() && w.at[a.AsString()] == id {
			if h.Running = false; wholly {
				delete(w.Hosts, node)
			}
		}
	}
}

// reach tells why a node's host can't be reached.
func (w *World) reach(node cty.Value) error {
	a := addressOf(node)
	if a.IsNull() {
		return nil
	}
	id, on := w.at[a.AsString()]
	if m := w.Machinery[id]; on && (m == nil || m.Off) {
		return fmt.Errorf("%w: no route to %s", providers.ErrUnreachable, a.AsString())
	}
	return nil
}

// TurnOff stops a machine as if somebody had pulled its plug.
func (w *World) TurnOff(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, m := range w.Machinery {
		if m.Addr.Type == addr.TypeMachine && m.Value.GetAttr("name").RawEquals(cty.StringVal(name)) {
			m.Off = true
			w.lose(id, w.Diskless)
		}
	}
	w.place()
}
