package confdb

import (
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/providertest"
)

func fenceValue(set map[string]cty.Value) cty.Value {
	all := map[string]cty.Value{"name": cty.StringVal("power"), "agent": cty.StringVal("fence_ipmilan")}
	for k, v := range set {
		all[k] = v
	}
	return providertest.Default(spec.FenceSchema(), all)
}

func TestConformanceFence(t *testing.T) {
	f := newFake(t, "n1", "n2")
	f.up()
	providertest.Run(t, providertest.Object{
		New:    func(*testing.T) providers.Provider { return f.provider() },
		Addr:   addr.Fence("power", addr.NoKey),
		Type:   addr.TypeFence,
		ID:     pki.NewID(),
		Create: fenceValue(map[string]cty.Value{"nodes": cty.ListVal([]cty.Value{cty.StringVal("n2")})}),
		Update: fenceValue(map[string]cty.Value{"level": cty.NumberIntVal(2), "parameters": cty.MapVal(map[string]cty.Value{"ip": cty.StringVal("10.0.0.1")})}),
	})
}

// A secret that is what was applied last reads as it was; one that was changed
// by someone else reads as something else, and never as itself.
func TestSecretsOfFences(t *testing.T) {
	f := newFake(t, "n1")
	f.up()
	value := func(password string) cty.Value {
		return fenceValue(map[string]cty.Value{"parameters": cty.MapVal(map[string]cty.Value{"password": cty.StringVal(password), "ip": cty.StringVal("10.0.0.1")})})
	}
	req := providers.ApplyRequest{Addr: addr.Fence("power", addr.NoKey), Type: addr.TypeFence, ID: "f1", Planned: value("hunter2")}
	if _, err := f.provider().Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		applied string
		same    bool
	}{{"hunter2", true}, {"hunter1", false}} {
		got, err := f.provider().Read(t.Context(), providers.ReadRequest{Addr: req.Addr, Type: req.Type, ID: "f1", Prior: &providers.Object{ID: "f1", Value: value(c.applied)}})
		if err != nil {
			t.Fatal(err)
		}
		if same := got.Object.Value.RawEquals(value(c.applied)); same != c.same {
			t.Errorf("applied %s: read %#v", c.applied, got.Object.Value)
		}
	}

	// Of what was applied there is only a digest: it reads as that, and is sent as
	// what the cluster knows for its own.
	digest := value(spec.Digest('s', strings.Repeat("x", 43)))
	got, err := f.provider().Read(t.Context(), providers.ReadRequest{Addr: req.Addr, Type: req.Type, ID: "f1", Prior: &providers.Object{ID: "f1", Value: digest}})
	if err != nil || !got.Object.Value.RawEquals(digest) {
		t.Fatalf("%v: read %#v", err, got.Object)
	}
	req.Planned, req.Prior = digest, got.Object
	resp, err := f.provider().Apply(t.Context(), req)
	if err != nil || !resp.Object.Value.RawEquals(digest) {
		t.Fatalf("%v: %#v", err, resp.Object)
	}
	got, err = f.provider().Read(t.Context(), providers.ReadRequest{Addr: req.Addr, Type: req.Type, ID: "f1", Prior: &providers.Object{ID: "f1", Value: value("hunter2")}})
	if err != nil || !got.Object.Value.RawEquals(value("hunter2")) {
		t.Errorf("%v: the secret was changed: %#v", err, got.Object)
	}
	req.ID, req.Prior = "f2", nil
	if _, err := f.provider().Apply(t.Context(), req); err == nil || !strings.Contains(err.Error(), "only a digest") {
		t.Errorf("a digest was sent as a secret: %v", err)
	}
}
