package core

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// What a change of a running resource means: only what a plan calls a restart is one.
func TestSameResource(t *testing.T) {
	base := func() spec.Resource {
		return spec.Resource{Name: "a", Type: "ip_address", Attributes: map[string]any{"address": "10.0.0.5", "probe": "25ms"}}
	}
	for _, tt := range []struct {
		name   string
		change func(*spec.Resource)
		same   bool
	}{
		{"nothing", func(*spec.Resource) {}, true},
		{"a check", func(r *spec.Resource) { r.LooksAlive.TCP = "10.0.0.5:80" }, true},
		{"an attribute for the next start", func(r *spec.Resource) { r.Attributes["probe"] = "1s" }, true},
		{"an attribute of what runs", func(r *spec.Resource) { r.Attributes["address"] = "10.0.0.6" }, false},
		{"a new attribute of what runs", func(r *spec.Resource) { r.Attributes["interface"] = "eth1" }, false},
		{"another process", func(r *spec.Resource) { r.SeparateMonitor = true }, false},
		{"made anew", func(r *spec.Resource) { r.ID = "2" }, false},
		{"another type", func(r *spec.Resource) { r.Type = "script" }, false},
	} {
		b := base()
		tt.change(&b)
		if got := sameResource(base(), b); got != tt.same {
			t.Errorf("%s: same %v, want %v", tt.name, got, tt.same)
		}
	}
}

// A resource that has another name starts under it once it is down under the old one.
func TestRenamedResourceGoesDownFirst(t *testing.T) {
	group := func(first string) *confdb.Group {
		return &confdb.Group{Spec: spec.Group{Name: "g", Resources: []spec.Resource{
			{ID: "1", Name: first, Type: "script"}, {ID: "2", Name: "b", Type: "script"}, {Name: "of no id", Type: "script"}}}}
	}
	r := newRun("g", group("a"))
	for i := range r.resources {
		r.resources[i].state = spec.StateOnline
	}
	if !r.define(group("c")) || len(r.old) != 1 || r.old[0].spec.Name != "a" {
		t.Fatalf("what goes down: %+v", r.old)
	}
	for i, want := range []bool{true, false, false} {
		if got := r.goesFirst(&r.resources[i].spec); got != want {
			t.Errorf("%s waits for an older one: %v", r.resources[i].spec.Name, got)
		}
	}
	r.old = nil
	if r.goesFirst(&r.resources[0].spec) {
		t.Error("it waits for nobody")
	}
}
