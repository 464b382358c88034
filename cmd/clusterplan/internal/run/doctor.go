package run

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Doctor looks at all that the definition needs, changes nothing, and tells of
// everything, also of what is well. An error is about the definition.
func (s *Session) Doctor(ctx context.Context) (*view.Examination, error) {
	var found []providers.Finding
	add := func(where, check string, err error, fine string) {
		f := providers.Finding{Where: where, Check: check, Level: providers.LevelOK, Found: fine}
		if err != nil {
			f.Level, f.Found = providers.LevelFail, err.Error()
		}
		found = append(found, f)
	}
	err := s.ReadState(ctx)
	if ctx.Err() != nil {
		return nil, ErrInterrupted
	}
	fine := "can be read"
	if err != nil {
		s.Snap = &statefile.Snapshot{}
	} else if s.Snap.State.Cluster == nil {
		fine = "can be read; nothing has been applied yet"
	}
	add("the state", "backend", err, s.Store.Path()+": "+fine)
	if _, err := s.rename(""); err != nil { // what the next apply moves is what the definition calls it
		return nil, err
	}
	def, diags := s.Config.Evaluate(s.known())
	diags = append(s.Diags, diags...)
	if diags.HasErrors() {
		return nil, &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()}
	}
	if err := s.configure(def); err != nil {
		add("the definition", "provider", err, "")
	} else {
		found = append(found, s.examine(ctx, def, func(addr.Address) (bool, bool) { return true, false })...)
	}
	if ctx.Err() != nil {
		return nil, ErrInterrupted
	}
	return view.NewExamination(found), nil
}

// examine asks every provider that can tell, of the objects that count; the hosts of
// some are not there yet (early).
func (s *Session) examine(ctx context.Context, def *lang.Definition, counts func(addr.Address) (yes, early bool)) []providers.Finding {
	needs := needsOf(def.Spec())
	of, have := map[string][]providers.Examinee{}, s.haveOf()
	for i := range def.Objects {
		o := &def.Objects[i]
		if yes, early := counts(o.Addr); yes || early {
			e := s.examinee(o, have[record{o.Addr, o.Provider}])
			e.Early = !yes
			of[o.Provider] = append(of[o.Provider], e)
		}
	}
	var found []providers.Finding
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, name := range s.registry.Names() {
		p, err := s.registry.Provider(name)
		doctor, can := p.(providers.Doctor)
		if err != nil || !can || len(of[name]) == 0 {
			continue
		}
		wait.Go(func() {
			all := doctor.Examine(ctx, providers.Examination{Objects: of[name], Needs: needs})
			mu.Lock()
			defer mu.Unlock()
			found = append(found, all...)
		})
	}
	wait.Wait()
	slices.SortStableFunc(found, func(a, b providers.Finding) int { return strings.Compare(a.Where, b.Where) })
	return found
}

// record is an address at a provider.
type record struct {
	addr     addr.Address
	provider string
}

// haveOf is what the state has of each address, or an apply that was cut off.
func (s *Session) haveOf() map[record]*statefile.Object {
	have := make(map[record]*statefile.Object, len(s.Snap.State.Objects))
	for i := range s.Snap.Pending {
		if o := s.Snap.Pending[i].Object; o != nil {
			have[record{o.Addr, o.Provider}] = o
		}
	}
	for i := range s.Snap.State.Objects {
		o := &s.Snap.State.Objects[i]
		have[record{o.Addr, o.Provider}] = o
	}
	return have
}

// examinee is an object with what is known of it (nil: nothing).
func (s *Session) examinee(o *lang.Object, have *statefile.Object) providers.Examinee {
	e := providers.Examinee{Addr: o.Addr, Config: o.Value}
	if have == nil {
		return e
	}
	e.ID, e.Prior = have.ID, &providers.Object{ID: have.ID, Private: have.Private}
	if p, err := s.registry.Provider(o.Provider); err == nil {
		if shape, ok := p.Schema().Objects[o.Type]; ok {
			e.Prior.Value, _ = schema.FromJSON(s.Snap.State.Known(have, o.Value), schema.Type(shape))
		}
	}
	return e
}

// ready looks at the hosts on which the plan puts nodes or starts them, and at the
// hypervisors on which it makes machines, networks and volumes: what they lack is
// told before anything is touched, all at once. Of a host that can't be reached its
// own node will tell, and holds up no other.
func (s *Session) ready(ctx context.Context, p *Planned) error {
	if p.Definition == nil {
		return nil
	}
	counts, early, moves := map[addr.Address]bool{}, map[addr.Address]bool{}, map[addr.Address]bool{}
	frees := false // names and subnets that something has, which goes in this apply
	for i := range p.Plan.Changes {
		if c := &p.Plan.Changes[i]; addr.Machinery(c.Address.Type) && c.Action() != "no-op" {
			moves[c.Address] = true
			frees = frees || c.Action() == "delete" || c.Action() == "replace"
		}
	}
	for i := range p.Plan.Changes {
		c := &p.Plan.Changes[i]
		starts := slices.Contains(c.Phases, providers.PhaseInstall) || slices.Contains(c.Phases, providers.PhaseStart)
		later := slices.ContainsFunc(c.DependsOn, func(a addr.Address) bool { return moves[a] }) // its machine is not there yet
		starts = starts && c.Address.Type == addr.TypeNode
		early[c.Address] = starts && later
		counts[c.Address] = starts && !later || addr.Machinery(c.Address.Type) && c.Action() == "create"
	}
	found := s.examine(ctx, p.Definition, func(a addr.Address) (bool, bool) { return counts[a], early[a] })
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	lacks := func(f providers.Finding) bool {
		return f.Level == providers.LevelFail && !(frees && (f.Check == providers.CheckName || f.Check == providers.CheckSubnet))
	}
	refused := slices.ContainsFunc(found, func(f providers.Finding) bool { return lacks(f) && f.Check != providers.CheckConnection })
	if !refused {
		return nil
	}
	return &view.DiagnosticsError{Diags: view.Unready(slices.DeleteFunc(found, func(f providers.Finding) bool { return !lacks(f) }))}
}

// needsOf are what groups and fences ask of the nodes.
func needsOf(d *spec.Definition) providers.Needs {
	needs := providers.Needs{Programs: map[string]string{}}
	if d == nil {
		return needs
	}
	program := func(who addr.Address, command any) {
		// What has no path is looked for by the node, in places of its own.
		if argv, ok := command.([]any); ok && len(argv) > 0 {
			if name := fmt.Sprint(argv[0]); path.IsAbs(name) {
				needs.Programs[path.Clean(name)] = cmp.Or(needs.Programs[path.Clean(name)], who.String())
			}
		}
	}
	for _, f := range d.Fences {
		if f.Agent != spec.FenceLocal && f.Agent != spec.FenceLibvirt && !slices.Contains(needs.FenceAgents, f.Agent) {
			needs.FenceAgents = append(needs.FenceAgents, f.Agent)
		}
	}
	for _, g := range d.Groups {
		for _, r := range g.Resources {
			switch r.Type {
			case "ip_address":
				needs.Addresses = needs.Addresses || !loopback(r.Attributes["address"])
			case "generic_application":
				program(r.Addr, r.Attributes["command"])
			case "script":
				program(r.Addr, r.Attributes["start"])
				program(r.Addr, r.Attributes["stop"])
			}
		}
	}
	return needs
}

// loopback addresses are there on every machine.
func loopback(v any) bool {
	text, _ := v.(string)
	text, _, _ = strings.Cut(text, "/")
	a, err := netip.ParseAddr(text)
	return err == nil && a.IsLoopback()
}
