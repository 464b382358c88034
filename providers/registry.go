package providers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Registry is the providers of a run, by name. It is made once, by the
// command, and read only from then on.
type Registry struct {
	byName map[string]Provider
}

// NewRegistry holds the given providers.
func NewRegistry(byName map[string]Provider) *Registry {
	return &Registry{byName: maps.Clone(byName)}
}

// Provider finds a provider by name; the error names those that there are.
func (r *Registry) Provider(name string) (Provider, error) {
	p, ok := r.byName[name]
	if !ok {
		return nil, fmt.Errorf("there is no provider %q in this program; it has %s", name, strings.Join(r.Names(), ", "))
	}
	return p, nil
}

// Names are the providers' names, sorted.
func (r *Registry) Names() []string {
	return slices.Sorted(maps.Keys(r.byName))
}

// Schemas are the providers' schemas, by name.
func (r *Registry) Schemas() map[string]Schema {
	out := make(map[string]Schema, len(r.byName))
	for name, p := range r.byName {
		out[name] = p.Schema()
	}
	return out
}

// Machinery are the schemas of the machines, networks and volumes that providers
// have, by provider and type.
func (r *Registry) Machinery() map[string]map[string]spec.Schema {
	out := map[string]map[string]spec.Schema{}
	for name, p := range r.byName {
		for typ, s := range p.Schema().Objects {
			if !addr.Machinery(typ) {
				continue
			}
			if out[name] == nil {
				out[name] = map[string]spec.Schema{}
			}
			out[name][typ] = s
		}
	}
	return out
}

// Close closes every provider, in the order of their names.
func (r *Registry) Close() error {
	var errs []error
	for _, name := range r.Names() {
		if err := r.byName[name].Close(); err != nil {
			errs = append(errs, fmt.Errorf("close provider %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
