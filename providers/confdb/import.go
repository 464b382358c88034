package confdb

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Import finds a group or a fence of the cluster's database by its id or its
// name, whoever manages it. A copy that may be behind is not enough: what it
// holds may be gone.
func (p *Provider) Import(ctx context.Context, req providers.ImportRequest) (providers.ImportResponse, error) {
	if req.Type != addr.TypeGroup && req.Type != addr.TypeFence {
		return providers.ImportResponse{}, fmt.Errorf("a %s can't be imported", req.Type)
	}
	db, err := p.database(ctx)
	switch {
	case err != nil:
		return providers.ImportResponse{}, err
	case db.none:
		return providers.ImportResponse{}, fmt.Errorf("no node holds a cluster yet, so there is no %s", req.Type)
	case !db.Quorum:
		return providers.ImportResponse{}, fmt.Errorf("%w: the copy of the configuration that answers may be behind; bring nodes back first", providers.ErrNoQuorum)
	}
	if req.Type == addr.TypeFence {
		return importFence(db, req)
	}
	return importGroup(db, req)
}

func importGroup(db *database, req providers.ImportRequest) (providers.ImportResponse, error) {
	found := db.groups[req.ID]
	var names []string
	for i := range db.Groups {
		g := &db.Groups[i]
		names = append(names, g.Spec.Name)
		if found == nil && g.Spec.Name == req.ID {
			found = g
		}
	}
	if found == nil {
		return providers.ImportResponse{}, notFound(req, names)
	}
	o, resources, err := groupObject(found.Spec)
	if err != nil {
		return providers.ImportResponse{}, err
	}
	for i := range resources {
		// Who made it may have known no addresses: then its name is its label.
		r, was := &resources[i], found.Spec.Resources[i]
		if !was.Addr.IsResource() {
			was.Addr = req.Addr.WithResource(was.Name, addr.NoKey)
		}
		if r.Addr = req.Addr.WithResource(was.Addr.Resource, was.Addr.ResourceKey); r.Addr.DefaultName() != was.Name {
			return providers.ImportResponse{}, fmt.Errorf("its resource %s has the address %s, by which it would be called %s", was.Name, r.Addr, r.Addr.DefaultName())
		}
		if _, err := addr.Parse(r.Addr.String()); err != nil {
			return providers.ImportResponse{}, fmt.Errorf("its resource %s can't be in a definition, for its name is no label: %w", was.Name, err)
		}
	}
	return providers.ImportResponse{Object: o, Resources: resources, ManagedBy: found.Spec.ManagedBy}, nil
}

// importFence: where what stands for a secret is that of the definition's, it
// is that.
func importFence(db *database, req providers.ImportRequest) (providers.ImportResponse, error) {
	found := db.fences[req.ID]
	var names []string
	for i := range db.Fences {
		f := &db.Fences[i]
		names = append(names, f.Spec.Name)
		if found == nil && f.Spec.Name == req.ID {
			found = f
		}
	}
	if found == nil {
		return providers.ImportResponse{}, notFound(req, names)
	}
	o, err := readFence(found.Spec, &providers.Object{Value: req.Config})
	return providers.ImportResponse{Object: o, ManagedBy: found.Spec.ManagedBy}, err
}

func notFound(req providers.ImportRequest, names []string) error {
	there := "it has none"
	if len(names) > 0 {
		slices.Sort(names)
		const most = 8
		if n := len(names); n > most {
			names = append(names[:most], fmt.Sprintf("and %d more", n-most))
		}
		there = "it has " + strings.Join(names, ", ")
	}
	return fmt.Errorf("the cluster has no %s whose id or name is %q: %s", req.Type, req.ID, there)
}

// adopted tells whether a group that is put is what there was, but for who
// manages it: nothing of it starts or stops, so that nothing is waited for.
func adopted(old, g spec.Group) bool {
	old.ManagedBy, old.Addr = g.ManagedBy, g.Addr
	old.Resources, g.Resources = slices.Clone(old.Resources), slices.Clone(g.Resources)
	for i := range old.Resources {
		if i < len(g.Resources) {
			old.Resources[i].Addr = g.Resources[i].Addr
		}
	}
	a, err := json.Marshal(old)
	if err != nil {
		return false
	}
	b, err := json.Marshal(g)
	return err == nil && bytes.Equal(a, b)
}
