package planner

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// ActionImport is the action of an intent to take into the state what is there.
// Nothing is made with it: what has it alone may be somebody else's still.
const ActionImport = "import"

// Import is what an import block found, which the state doesn't have yet.
type Import struct {
	To        addr.Address
	ID        string // as the block names it
	Range     *hcl.Range
	Provider  string
	Object    *providers.Object // nil: Err
	Resources []providers.Resource
	ManagedBy string // in the cluster's database
	Err       string // why it can't be imported
}

// Foreign tells whether somebody else manages it until now.
func (i *Import) Foreign() bool {
	return i.ManagedBy != spec.ManagedBy && !addr.Machinery(i.To.Type) // which is in no cluster's database
}

// stored is what the state gets of an import: resources before their group, so
// that whoever finds the group finds all of it.
func (i *Import) stored(def *lang.Definition) ([]statefile.Object, error) {
	var out []statefile.Object
	add := func(a addr.Address, typ string, id string, v cty.Value, private []byte) error {
		text, err := schema.ToJSON(v)
		if err != nil {
			return fmt.Errorf("import %s: %w", a, err)
		}
		o := statefile.Object{Addr: a, Type: typ, Provider: i.Provider, ID: id, Attributes: text, Private: private}
		if w, ok := def.Object(a); ok {
			o.DependsOn = (&wanted{Object: w}).hard()
			o.PreventDestroy, o.Sensitive = w.PreventDestroy, schema.SensitiveNames(w.Value)
		}
		out = append(out, o)
		return nil
	}
	for _, r := range i.Resources {
		if err := add(r.Addr, r.Type, r.ID, r.Value, nil); err != nil {
			return nil, err
		}
	}
	err := add(i.To, i.To.Type, i.Object.ID, i.Object.Value, i.Object.Private)
	return out, err
}

// ids are a state's objects by id.
func ids(s *statefile.State) map[string]addr.Address {
	out := make(map[string]addr.Address, len(s.Objects))
	for i := range s.Objects {
		out[s.Objects[i].ID] = s.Objects[i].Addr
	}
	return out
}

// Adopt puts what was imported into a state. s stays as it is.
func Adopt(s statefile.State, def *lang.Definition, one *Import) (statefile.State, error) {
	if one.Err != "" {
		return s, errors.New(one.Err)
	}
	if why := one.taken(ids(&s), false); why != "" {
		return s, errors.New(why)
	}
	stored, err := one.stored(def)
	if err != nil {
		return s, err
	}
	s.Objects = slices.Concat(s.Objects, stored)
	slices.SortFunc(s.Objects, func(x, y statefile.Object) int { return addr.Compare(x.Addr, y.Addr) })
	return s, nil
}

// taken says what of an import is known by another address; "": nothing. again:
// known may have the import itself, which was cut off.
func (i *Import) taken(known map[string]addr.Address, again bool) string {
	if other, taken := known[i.Object.ID]; taken && !(again && other == i.To) {
		return fmt.Sprintf("%q is %s already, with the id %s. For another address of it, use a moved block or clusterplan state mv.", i.ID, other, i.Object.ID)
	}
	own := map[string]addr.Address{}
	for _, r := range i.Resources {
		other, taken := known[r.ID]
		if !taken || again && other == r.Addr {
			if other, taken = own[r.ID]; !taken {
				own[r.ID] = r.Addr
				continue
			}
		}
		return fmt.Sprintf("Its resource %s has the id %s, and so has %s already. One thing can't be at two addresses: import only one of the two, or give up the other with clusterplan state rm.", r.Addr, r.ID, other)
	}
	return ""
}

// Adoption is an import that is done by writing it into the state.
type Adoption struct {
	Addr    addr.Address
	Objects []statefile.Object // resources before their group
}

// imports puts what is imported into the state that the plan rests on: from
// there on it is an object like any other.
func (b *builder) imports() {
	b.importing = map[addr.Address]*Import{}
	if len(b.in.Imports) == 0 {
		return
	}
	known := ids(&b.in.State)
	for i := range b.in.Pending {
		// An import that was cut off made nothing: without its block it is dropped.
		if p := &b.in.Pending[i]; p.Object != nil && p.Object.ID != "" && (p.Action != ActionImport || b.defined(p.Addr)) {
			known[p.Object.ID] = p.Addr
		}
	}
	objects := slices.Clone(b.in.State.Objects)
	b.in.World.Objects = maps.Clone(b.in.World.Objects)
	b.in.Imports = slices.Clone(b.in.Imports)
	for i := range b.in.Imports {
		one := &b.in.Imports[i]
		if one.Object == nil {
			continue
		}
		if one.Err = one.taken(known, true); one.Err != "" {
			continue
		}
		stored, err := one.stored(b.in.Definition)
		if err != nil {
			one.Err = Sentence(err.Error())
			continue
		}
		known[one.Object.ID] = one.To
		for _, r := range one.Resources {
			known[r.ID] = r.Addr
		}
		objects = append(objects, stored...)
		b.importing[one.To] = one
		if b.in.World.Objects != nil {
			b.in.World.Objects[one.To] = Seen{Object: one.Object, Resources: one.Resources}
		}
	}
	slices.SortFunc(objects, func(x, y statefile.Object) int { return addr.Compare(x.Addr, y.Addr) })
	b.in.State.Objects = objects
}

func (b *builder) defined(a addr.Address) bool {
	if b.in.Definition == nil {
		return false
	}
	_, ok := b.in.Definition.Object(a)
	return ok
}

// cutOff takes over what earlier applies had begun. An import made nothing: it
// counts only where what it took into the cluster's hands is found again, and
// still wanted; else it is dropped.
func (b *builder) cutOff(want *addr.Index[wanted]) {
	for i := range b.in.Pending {
		p := &b.in.Pending[i]
		if p.Action == ActionImport && (want.At(p.Addr) == nil || b.importing[p.Addr] != nil || b.in.World.Objects[p.Addr].Object == nil) {
			b.dropped = append(b.dropped, p.Addr)
			continue
		}
		b.pending[p.Addr] = p
	}
}

// refuseImports tells of what can't be imported, unless it is left out anyway.
func (b *builder) refuseImports() {
	for i := range b.in.Imports {
		one := &b.in.Imports[i]
		if it := b.at.At(one.To); one.Err == "" || it != nil && it.left {
			continue
		}
		d := problem(hcl.DiagError, "Can't import "+one.To.String(), one.Err)
		d.Subject = one.Range
		b.diags = append(b.diags, d)
	}
}

// imported tells of an object that comes into the state with this plan.
func (b *builder) imported(it *item) {
	one := b.importing[it.addr()]
	if one == nil || it.left || it.want == nil {
		return
	}
	c := it.change
	c.Importing = &one.ID
	if c.Before == cty.NilVal && it.prior != nil && it.prior.Value.IsKnown() {
		c.Before = it.veil(likeMarks(b.shapes[c.Type].guard(it.prior.Value), it.want.config))
		c.After = c.Before
	}
	if one.Foreign() {
		it.moves = true // the database has to learn who manages it
		c.Why = append(c.Why, "managed by "+cmp.Or(one.ManagedBy, "nobody")+" until now")
	}
	if c.Action() == "replace" && one.Foreign() {
		b.fail(it, it.addr().String()+" can't be imported and replaced at once", "It is not clusterplan's yet. Import it first, in an apply of its own.")
	}
}

// comes tells whether an object, or its group, is imported.
func (b *builder) comes(a addr.Address) bool { return b.importing[a.Owner()] != nil }

// adoptions are the imports that nothing but the state has to learn of.
func (b *builder) adoptions() []Adoption {
	var out []Adoption
	for _, it := range b.items {
		if one := b.importing[it.addr()]; one != nil && it.change.Importing != nil && !one.Foreign() {
			out = append(out, b.adoption(it))
		}
	}
	return out
}

func (b *builder) adoption(it *item) Adoption {
	stored, _ := b.importing[it.addr()].stored(b.in.Definition) // it was asked before
	return Adoption{Addr: it.addr(), Objects: stored}
}
