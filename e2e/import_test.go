package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// What the state has lost comes back as it runs, with its ids and with blocks
// that are written for it; nothing that runs notices.
func TestImport(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	ids := map[string]string{}
	for _, o := range l.state().Objects {
		ids[o.Addr.String()] = o.ID
	}
	web := l.status().Groups[0]
	l.must(0, "state", "rm", "node.n3", "group.web").wants(t, "Nothing manages them any more")
	l.must(1, "plan").wants(t, "group web (managed by clusterplan)", "node n3 (managed by clusterplan)",
		"The cluster has a node called n3 already", "clusterplan import group.web web")

	main := filepath.Join(l.dir, "main.cluster.hcl")
	src, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(src), "group \"web\" {")
	block, _, _ := strings.Cut(rest, "\ngroup \"worker\" {")
	if !ok {
		t.Fatal("the example has no group web")
	}
	l.edit("group \"web\" {"+block, "import {\n  to = group.web\n  id = \"web\"\n}\n\nimport {\n  to = node.n3\n  id = \""+l.node("n3").Address+"\"\n}\n")
	l.edit("node \"n3\" {\n  provider = local\n}\n", "")
	l.edit("[node.n2, node.n3, node.n1]", "[node.n2, node.n1]")
	l.edit("depends_on       = [group.web]", "")
	l.must(1, "plan").wants(t, "Can't import group.web", "The definition has no group.web", "--generate-config-out")
	file := filepath.Join(l.dir, "imported.cluster.hcl")
	l.must(1, "plan", "--generate-config-out", filepath.Join(t.TempDir(), "x.cluster.hcl")).wants(t, "would be no file of the definition")
	l.must(0, "plan", "--generate-config-out", file).wants(t, "2 to import, 0 to add, 1 to change, 0 to destroy", "node.n3 will be imported", "group.web will be imported")
	l.must(1, "plan", "--generate-config-out", file).wants(t, "is there already")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l.before[file] = string(text)
	if n := strings.Count(string(text), "\n"); n > 40 || !strings.Contains(string(text), "preferred_owners = [node.n1, node.n2, node.n3]") {
		t.Errorf("it is not only what differs from the defaults:\n%s", text)
	}
	l.must(0, "fmt", "--check", file)

	// As the plan file says, too.
	saved := filepath.Join(t.TempDir(), "a.plan")
	l.must(0, "plan", "--target", "group.web", "--target", "node.n3", "--out", saved)
	l.must(0, "apply", saved).wants(t, "node.n3: imported", "2 imported, 0 added, 0 changed, 0 destroyed")
	l.must(5, "apply", saved).wants(t, "something was applied since")
	for _, o := range l.state().Objects {
		if ids[o.Addr.String()] != o.ID {
			t.Errorf("%s has the id %s, and had %s", o.Addr, o.ID, ids[o.Addr.String()])
		}
	}
	if now := l.status().Groups[0]; now.Name != "web" || now.Epoch != web.Epoch || now.Owner != web.Owner {
		t.Errorf("the group was touched: %+v, before %+v", now, web)
	}
	l.apply()
	l.settled()

	// The same by the command, of a group that somebody else manages by now.
	l.must(0, "state", "rm", "group.worker", "node.n2")
	api := l.admin()
	defer api.Close()
	conf, err := api.Config(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	g := conf.Groups[slices.IndexFunc(conf.Groups, func(g client.ConfigGroup) bool { return g.Spec.Name == "worker" })].Spec
	g.ManagedBy = "pulumi"
	if _, err := api.PutGroup(t.Context(), g, 0); err != nil {
		t.Fatal(err)
	}
	l.must(1, "plan").wants(t, "group worker (managed by pulumi)", "It is managed by pulumi, and not in this state")
	l.must(1, "import", "group.worker", "nobody").wants(t, "worker")
	l.must(0, "import", "group.worker", "worker").wants(t, "Imported", "kept in")
	l.must(0, "import", "node.n2", "n2")
	l.must(1, "import", "node.n2", "n2").wants(t, "has node.n2 already")
	if conf, err = api.Config(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for _, g := range conf.Groups {
		if g.Spec.ManagedBy != spec.ManagedBy {
			t.Errorf("%s is managed by %q", g.Spec.Name, g.Spec.ManagedBy)
		}
	}
	l.settled()
	l.destroyed()
}

// admin speaks to the agents as somebody else's program does.
func (l *lab) admin() *client.Client {
	l.t.Helper()
	id := l.identity()
	cert, err := id.ClientCert("pulumi", client.RoleAdmin, pki.ClientLife)
	if err != nil {
		l.t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		l.t.Fatal(err)
	}
	conf, err := pki.ClientConfig(id.CACert, id.ID, pair, "")
	if err != nil {
		l.t.Fatal(err)
	}
	var endpoints []string
	for _, n := range l.status().Nodes {
		endpoints = append(endpoints, n.Address)
	}
	return client.New(client.Options{Endpoints: endpoints, TLS: conf, Author: "pulumi"})
}
