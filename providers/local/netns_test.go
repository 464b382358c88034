package local

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/providertest"
)

// netnsWorld is a world whose nodes are in namespaces.
func netnsWorld(t *testing.T) *world {
	t.Helper()
	if err := netlab.Allowed(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	w := newWorld(t)
	t.Cleanup(func() {
		lab := Lab(w.dir)
		r, _ := lab.Record()
		for key := range r.Seats {
			if err := lab.Unwire(key); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// netns is a provider with mode = "netns" and these networks.
func (w *world) netns(t *testing.T, subnet, subnet6 string) *providers.Nodes {
	t.Helper()
	config := map[string]cty.Value{"mode": cty.StringVal(ModeNetns), "subnet": cty.StringVal(subnet), "subnet6": cty.NullVal(cty.String)}
	if subnet6 != "" {
		config["subnet6"] = cty.StringVal(subnet6)
	}
	p := New()
	err := p.Configure(cty.ObjectVal(config), providers.Env{DataDir: w.dir, Program: w.program, Version: "1.2.3",
		Identity: func() *pki.Identity { return w.identity }, Cluster: w.cluster, Nodes: w.nodes,
		Order: []addr.Address{addr.Node("n1", addr.NoKey), addr.Node("n2", addr.NoKey)}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nothing wants no namespace and no record of the world to be left.
func (w *world) nothing(t *testing.T, prefix string) {
	t.Helper()
	if r, err := Lab(w.dir).Record(); !errors.Is(err, netlab.ErrNone) {
		t.Errorf("a record is left: %+v, %v", r, err)
	}
	if left, _ := filepath.Glob("/run/netns/" + prefix + "*"); len(left) > 0 || prefix == "" {
		t.Errorf("namespaces are left: %q", left)
	}
}

// prefix begins the names of the lab's namespaces.
func (w *world) prefix(t *testing.T) string {
	t.Helper()
	r, err := Lab(w.dir).Record()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(r.Switch, ".switch")
}

func TestNetnsConformance(t *testing.T) {
	w := netnsWorld(t)
	prefix := ""
	providertest.Run(t, providertest.Object{
		New: func(t *testing.T) providers.Provider {
			if r, err := Lab(w.dir).Record(); err == nil {
				prefix = strings.TrimSuffix(r.Switch, ".switch")
			}
			return w.netns(t, "10.77.0.0/24", "fd77::/64")
		},
		Addr:   addr.Node("n2", addr.NoKey),
		Type:   addr.TypeNode,
		ID:     pki.NewID(),
		Create: nodeValue("n2", nil),
		Update: nodeValue("n2", map[string]cty.Value{"zone": cty.StringVal("east"), "address": cty.StringVal("10.77.0.9:7500")}),
	})
	w.nothing(t, prefix)
}

func endpoint(n *node) string { return n.prior.Value.GetAttr("endpoint").AsString() }

// What is gone is seen and mended; another network makes the node anew, another
// mode is refused, whatever was cut off leaves nothing in the end.
func TestNetnsLife(t *testing.T) {
	w := netnsWorld(t)
	p := w.netns(t, "10.77.0.0/24", "")
	n := newNode(t, p, "n2", nil)
	n.phases(create...)
	prefix := w.prefix(t)
	if got := endpoint(n); got != "10.77.0.2:7400" {
		t.Errorf("the second node is at %s", got)
	}
	r, err := Lab(w.dir).Record()
	if err != nil {
		t.Fatal(err)
	}
	ns := r.Seats["n2"].Namespace
	if pids, err := netlab.Processes(ns); err != nil || len(pids) != 1 {
		t.Errorf("in the node's namespace run %v, %v", pids, err)
	}

	if err := Lab(w.dir).Unplug("n2"); err != nil {
		t.Fatal(err)
	}
	if got := n.read(); !slices.Equal(got, []string{"network unplugged"}) {
		t.Errorf("unplugged: %q", got)
	}
	if got := n.plan().Phases; !slices.Equal(got, []string{"stop", "install", "start"}) {
		t.Errorf("unplugged, an apply does %q", got)
	}
	n.phases(n.plan().Phases...)
	if got := n.read(); len(got) > 0 {
		t.Errorf("mended: %q", got)
	}

	n.p = w.netns(t, "10.78.0.0/24", "")
	if res := n.plan(); len(res.Replace) != 1 || res.Planned.GetAttr("endpoint").IsKnown() {
		t.Errorf("another network: %+v", res)
	}
	n.p = w.provider(t, nil)
	if _, err := n.p.Plan(providers.PlanRequest{Addr: n.addr(), Type: "node", Prior: n.prior, Config: n.config}); err == nil || !strings.Contains(err.Error(), "destroy") {
		t.Errorf("another mode: %v", err)
	}
	// Taken away by a provider that wants another mode: what is there counts.
	n.config = cty.NilVal
	n.phases(n.plan().Phases...)
	w.nothing(t, prefix)

	// Cut off after its directory was there, before anything else: an apply that
	// takes the node away finds the namespace by the record.
	n = newNode(t, p, "n1", nil)
	n.phases(providers.PhaseInstall)
	n.prior = &providers.Object{ID: n.id}
	n.read()
	if n.prior == nil {
		t.Fatal("a node that was cut off is not seen")
	}
	n.config = cty.NilVal
	n.phases(providers.PhaseStop, providers.PhaseRemove)
	w.nothing(t, prefix)
}

func TestNetnsAddresses(t *testing.T) {
	w := netnsWorld(t)
	p := w.netns(t, "10.77.0.0/24", "")
	for _, c := range []struct{ name, address, want string }{
		{"n1", "10.77.0.7", ""},
		{"n1", "10.77.0.7:81", ""},
		{"n1", "10.78.0.7", "subnet"},
		{"n1", "10.77.0.255", "no host's address"},
		{"n1", "example.com", "no address"},
		{"client", "", "another name"},
	} {
		set := map[string]cty.Value{}
		if c.address != "" {
			set["address"] = cty.StringVal(c.address)
		}
		_, err := p.Plan(providers.PlanRequest{Addr: addr.Node(c.name, addr.NoKey), Type: "node", Config: nodeValue(c.name, set)})
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s at %q: %v", c.name, c.address, err)
		}
	}
}
