package refresh

import (
	"maps"
	"reflect"
	"slices"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// unchanged finds the groups that the database has just as the definition
// wants them, resources and all. They need no reading one by one, and no
// comparing attribute by attribute: in most plans that is nearly all of them.
func unchanged(def *lang.Definition, live *providers.Live, state *statefile.State) map[addr.Address]bool {
	out := map[addr.Address]bool{}
	if def == nil || live == nil {
		return out
	}
	ids := addr.NewIndex(func(o *statefile.Object) *addr.Address { return &o.Addr }, len(state.Objects))
	for i := range state.Objects {
		ids.Put(&state.Objects[i])
	}
	want := def.Spec()
	groups := addr.NewIndex(func(g *spec.Group) *addr.Address { return &g.Addr }, len(want.Groups))
	for i := range want.Groups {
		groups.Put(&want.Groups[i])
	}
	for i := range live.Groups {
		there := &live.Groups[i].Spec
		wanted := groups.At(there.Addr)
		if wanted == nil || there.ManagedBy != spec.ManagedBy || !sameGroup(wanted, there) || !known(def, ids, there) {
			continue
		}
		out[there.Addr] = true
		share(there, wanted)
	}
	return out
}

// share has a group point to what the definition holds anyway, in place of what
// the database's answer said in the same words: so does what the provider keeps of
// it, with the resources' ids. Of a group that is as it is wanted nobody else asks
// for them.
func share(there, wanted *spec.Group) {
	for i := range there.Resources {
		id := there.Resources[i].ID
		there.Resources[i] = wanted.Resources[i]
		there.Resources[i].ID = id
	}
	id, by, stated := there.ID, there.ManagedBy, there.Failover.Stated
	*there = *wanted
	there.ID, there.ManagedBy, there.Failover.Stated = id, by, stated
}

// known tells whether the state has the group and its resources under their
// ids, whole, and the definition knows all of their attributes.
func known(def *lang.Definition, ids *addr.Index[statefile.Object], g *spec.Group) bool {
	one := func(a addr.Address, typ, id string) bool {
		o := ids.At(a)
		if o == nil || o.ID != id || o.Type != typ || o.Tainted != "" || len(o.Phases) > 0 {
			return false
		}
		w, ok := def.Object(a)
		return ok && !w.Unknown
	}
	if !one(g.Addr, addr.TypeGroup, g.ID) {
		return false
	}
	for i := range g.Resources {
		if r := &g.Resources[i]; !one(r.Addr, r.Type, r.ID) {
			return false
		}
	}
	return true
}

// sameGroup compares two groups in all but their ids and who manages them. A
// test holds it to spec.Group's fields. Where it says no wrongly, the group is
// read and compared the long way.
func sameGroup(a, b *spec.Group) bool {
	return a.Addr == b.Addr && a.Name == b.Name && a.Description == b.Description &&
		slices.Equal(a.PreferredOwners, b.PreferredOwners) && slices.Equal(a.PossibleOwners, b.PossibleOwners) &&
		a.Priority == b.Priority && maps.Equal(a.Demand, b.Demand) && slices.Equal(a.DependsOn, b.DependsOn) &&
		slices.Equal(a.KeepApart, b.KeepApart) && slices.Equal(a.KeepApartSoft, b.KeepApartSoft) &&
		a.PersistentState == b.PersistentState && a.StopWithin == b.StopWithin && a.NoQuorum == b.NoQuorum &&
		sameFailover(a.Failover, b.Failover) && a.Failback == b.Failback &&
		slices.EqualFunc(a.Resources, b.Resources, func(x, y spec.Resource) bool { return sameResource(&x, &y) })
}

// sameFailover leaves out Stated, which is no attribute.
func sameFailover(a, b spec.Failover) bool {
	a.Stated, b.Stated = false, false
	return a == b
}

func sameResource(a, b *spec.Resource) bool {
	return a.Addr == b.Addr && a.Name == b.Name && a.Type == b.Type &&
		maps.EqualFunc(a.Attributes, b.Attributes, sameValue) &&
		slices.Equal(a.DependsOn, b.DependsOn) && slices.Equal(a.DependsOnAny, b.DependsOnAny) &&
		a.PendingTimeout == b.PendingTimeout && a.SeparateMonitor == b.SeparateMonitor && samePoll(&a.LooksAlive, &b.LooksAlive) && samePoll(&a.IsAlive, &b.IsAlive) &&
		a.Restart == b.Restart && sameCheckpoint(a.Checkpoint, b.Checkpoint)
}

func sameCheckpoint(a, b *spec.Checkpoint) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.Paths, b.Paths) && slices.Equal(a.Command, b.Command) && slices.Equal(a.Restore, b.Restore)
}

func samePoll(a, b *spec.Poll) bool {
	return a.Interval == b.Interval && a.Timeout == b.Timeout && slices.Equal(a.Command, b.Command) && a.TCP == b.TCP && a.HTTP == b.HTTP
}

// sameValue compares two JSON values.
func sameValue(a, b any) bool {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y
	case float64:
		y, ok := b.(float64)
		return ok && x == y
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, sameValue)
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, sameValue)
	}
	return reflect.DeepEqual(a, b)
}
