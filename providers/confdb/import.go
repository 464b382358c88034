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
	found, err := find(req, db.groups, db.Groups, func(i int) string { return db.Groups[i].Spec.Name })
	if err != nil {
		return providers.ImportResponse{}, err
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
	found, err := find(req, db.fences, db.Fences, func(i int) string { return db.Fences[i].Spec.Name })
	if err != nil {
		return providers.ImportResponse{}, err
	}
	o, err := readFence(found.Spec, &providers.Object{Value: req.Config})
	return providers.ImportResponse{Object: o, ManagedBy: found.Spec.ManagedBy}, err
}

// find is what has the id, or else the name, that was asked for.
func find[T any](req providers.ImportRequest, byID map[string]*T, list []T, name func(int) string) (*T, error) {
	if found := byID[req.ID]; found != nil {
		return found, nil
	}
	names := make([]string, len(list))
	for i := range list {
		if names[i] = name(i); names[i] == req.ID {
			return &list[i], nil
		}
	}
	return nil, notFound(req, names)
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
