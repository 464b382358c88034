package confdb

import (
	"errors"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// A group that somebody else manages is found by its name, refused until it is
// to be taken over, and ours from then on, with its ids.
func TestImportOfOthers(t *testing.T) {
	f := newFake(t, "n1", "n2", "n3")
	f.up()
	p := f.provider()
	id := pki.NewID()
	made, err := p.Apply(t.Context(), providers.ApplyRequest{Addr: web, Type: addr.TypeGroup, ID: id, Planned: groupValue(nil), Resources: webResources()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	g := f.db.conf.Groups[0].Spec
	g.ManagedBy, g.Addr, g.Resources[0].Addr = "pulumi", addr.Address{}, addr.Address{}
	f.db.conf.Groups[0].Spec = g
	p = f.provider()
	site := addr.Group("site", addr.NoKey)
	res, err := p.Import(t.Context(), providers.ImportRequest{Addr: site, Type: addr.TypeGroup, ID: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if res.Object.ID != id || res.ManagedBy != "pulumi" || len(res.Resources) != 1 || res.Resources[0].Addr != site.WithResource("vip", addr.NoKey) || res.Resources[0].ID != made.Resources[0].ID {
		t.Errorf("found %+v", res)
	}
	put := providers.ApplyRequest{Addr: site, Type: addr.TypeGroup, ID: id, Prior: res.Object, Planned: res.Object.Value, Resources: res.Resources}
	if _, err := p.Apply(t.Context(), put); err == nil || !strings.Contains(err.Error(), `managed by "pulumi"`) {
		t.Errorf("it was put: %v", err)
	}
	put.Adopt = true
	if _, err := p.Apply(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	if g := f.db.conf.Groups[0].Spec; g.ManagedBy != spec.ManagedBy || g.Addr != site || g.ID != id {
		t.Errorf("it is %+v", g)
	}
	if seen, err := p.Read(t.Context(), providers.ReadRequest{Addr: site, Type: addr.TypeGroup, ID: id}); err != nil || !seen.Object.Value.RawEquals(res.Object.Value) {
		t.Errorf("read after it: %+v, %v", seen, err)
	}
	if _, err := p.Import(t.Context(), providers.ImportRequest{Addr: addr.Cluster(), Type: addr.TypeCluster, ID: "c"}); err == nil {
		t.Error("a cluster was imported")
	}
}

// What can't be confirmed may be gone.
func TestImportWithoutQuorum(t *testing.T) {
	f := newFake(t, "n1", "n2", "n3")
	f.up()
	p := f.provider()
	if _, err := p.Apply(t.Context(), providers.ApplyRequest{Addr: web, Type: addr.TypeGroup, ID: pki.NewID(), Planned: groupValue(map[string]cty.Value{"priority": cty.Zero})}); err != nil {
		t.Fatal(err)
	}
	f.db.quorum = false
	if res, err := f.provider().Import(t.Context(), providers.ImportRequest{Addr: web, Type: addr.TypeGroup, ID: "web"}); !errors.Is(err, providers.ErrNoQuorum) {
		t.Errorf("%+v, %v", res, err)
	}
}
