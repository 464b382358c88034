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
	"github.com/clusterplan/clusterplan/lang/spec"
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
func (w *world) netns(t *testing.T, subnet, subnet6 string, links ...spec.Link) *providers.Nodes {
	t.Helper()
	p, err := w.configured(subnet, subnet6, links)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) configured(subnet, subnet6 string, links []spec.Link) (*providers.Nodes, error) {
	config := map[string]cty.Value{"mode": cty.StringVal(ModeNetns), "subnet": cty.StringVal(subnet), "subnet6": cty.NullVal(cty.String)}
	if subnet6 != "" {
		config["subnet6"] = cty.StringVal(subnet6)
	}
	p := New()
	err := p.Configure(cty.ObjectVal(config), providers.Env{DataDir: w.dir, Program: w.program, Version: "1.2.3",
		Identity: func() *pki.Identity { return w.identity }, Cluster: w.cluster, Nodes: w.nodes, Links: append([]spec.Link{}, links...),
		Order: []addr.Address{addr.Node("n1", addr.NoKey), addr.Node("n2", addr.NoKey)}})
	return p, err
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
	t.Parallel()
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
	t.Parallel()
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

// A node is on each of the cluster's links; one that comes, goes or breaks is
// wired while the agent runs.
func TestNetnsLinks(t *testing.T) {
	t.Parallel()
	w := netnsWorld(t)
	lan, spare, six := spec.Link{Name: "lan", Subnet: "10.77.0.0/16", Role: spec.LinkAll}, spec.Link{Name: "spare", Subnet: "10.78.0.0/24"}, spec.Link{Name: "six", Subnet: "fd79::/64"}
	n := newNode(t, w.netns(t, "10.77.0.0/24", "", lan, spare), "n2", nil)
	n.phases(create...)
	prefix := w.prefix(t)
	is := func(networks []string, addresses ...string) {
		t.Helper()
		r, err := Lab(w.dir).Record()
		if err != nil {
			t.Fatal(err)
		}
		var at []string
		for _, a := range r.Seats["n2"].AllAddresses() {
			at = append(at, a.Addr().String())
		}
		if !slices.Equal(at, addresses) || !slices.Equal(r.Networks(), networks) {
			t.Errorf("networks %q with addresses %q; want %q with %q", r.Networks(), at, networks, addresses)
		}
		if got := n.read(); len(got) > 0 {
			t.Errorf("all is as it should be, and read finds %q", got)
		}
	}
	is([]string{"lan", "spare"}, "10.77.0.2", "10.78.0.2")
	mend := func(want ...string) {
		t.Helper()
		if got := n.read(); !slices.Equal(got, want) {
			t.Errorf("read finds %q, want %q", got, want)
		}
		if got := n.plan().Phases; !slices.Equal(got, []string{providers.PhaseInstall}) {
			t.Errorf("for %q an apply does %q", want, got)
		}
		n.phases(n.plan().Phases...)
	}
	if err := Lab(w.dir).Unplug("n2", "spare"); err != nil {
		t.Fatal(err)
	}
	mend("network link of spare: unplugged")
	n.p = w.netns(t, "10.77.0.0/24", "", lan, six, spare)
	mend("network link of six: not there")
	is([]string{"lan", "spare", "six"}, "10.77.0.2", "fd79::2", "10.78.0.2")
	n.p = w.netns(t, "10.77.0.0/24", "", six)
	mend("network link of spare: not in the definition")
	is([]string{"main", "six"}, "10.77.0.2", "fd79::2")

	for _, c := range []struct {
		link spec.Link
		want string
	}{
		{spec.Link{Name: "part", Subnet: "10.77.0.0/25"}, "only a part"},
		{spec.Link{Name: "tiny", Subnet: "10.78.0.0/30"}, "too few"},
		{spec.Link{Name: "lo", Subnet: "127.1.0.0/16"}, "loopback"},
		{spec.Link{Name: "main", Subnet: "10.78.0.0/24"}, "another name"},
	} {
		if _, err := w.configured("10.77.0.0/24", "", []spec.Link{c.link}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.link, err)
		}
	}
	n.config = cty.NilVal
	n.phases(n.plan().Phases...)
	w.nothing(t, prefix)
}

func TestNetnsAddresses(t *testing.T) {
	t.Parallel()
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
