package ssh

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Hosts that lack something in different ways are all told of at once, and
// nothing is left on them.
func TestExamine(t *testing.T) {
	w := newWorld(t)
	second, err := w.lab.Add("h2", "", "127.0.0.2", port(t))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ssh := func(set map[string]cty.Value) cty.Value {
		blocks := spec.NodeSchema().Blocks
		attrs := schema.BlockDefault(blocks[slices.IndexFunc(blocks, func(b spec.Block) bool { return b.Name == "ssh" })]).AsValueMap()
		for k, v := range set {
			attrs[k] = v
		}
		return cty.ObjectVal(attrs)
	}
	nodes := map[string]map[string]cty.Value{
		"fine":    {"address": cty.StringVal("127.0.0.1")},
		"taken":   {"address": cty.StringVal(taken.Addr().String()), "ssh": ssh(map[string]cty.Value{"port": cty.NumberIntVal(int64(second.Port))})},
		"changed": {"address": cty.StringVal("127.0.0.1"), "ssh": ssh(map[string]cty.Value{"host_key": cty.StringVal(second.Key())})},
		"dead":    {"address": cty.StringVal("127.0.0.3")},
		"later":   {"address": cty.UnknownVal(cty.String)},
	}
	var e providers.Examination
	for name, set := range nodes {
		e.Objects = append(e.Objects, providers.Examinee{Addr: addr.Node(name, addr.NoKey), Config: nodeValue(name, set)})
	}
	e.Needs = providers.Needs{Addresses: true, FenceAgents: []string{"fence_that_nobody_has"}, Programs: map[string]string{"/bin/sh": "group.g.resource.s"}}
	p := w.provider(nil)
	found := p.Examine(t.Context(), e)
	has := func(where, check, level, text string) {
		t.Helper()
		for _, f := range found {
			if strings.HasPrefix(f.Where, where) && f.Check == check && f.Level == level && strings.Contains(f.Found, text) {
				return
			}
		}
		t.Errorf("no finding %s %s %s %q", where, check, level, text)
	}
	first, other := w.host.Address+":", second.Address+":"
	for _, host := range []string{first, other} {
		for _, check := range []string{"architecture", "rights", "system", "disk", "addresses", "clock", "program"} {
			has(host, check, providers.LevelOK, "")
		}
		has(host, "service manager", providers.LevelWarn, "nothing starts it after a boot")
		has(host, "fence agent", providers.LevelFail, "fence_that_nobody_has")
	}
	has(other, "port", providers.LevelFail, taken.Addr().String()+" is taken")
	has("127.0.0.1", "node", providers.LevelFail, "another key")
	has("127.0.0.3", "connection", providers.LevelFail, "can't connect")
	has("node.later", "node", providers.LevelWarn, "known only after an apply")
	has("between hosts", "clocks", providers.LevelOK, "")
	if t.Failed() {
		for _, f := range found {
			t.Logf("%+v", f)
		}
	}
	w.nothingLeft()
}

// A node whose port is to be another one stops for it: that the new one is taken is
// told before. Its own port is its own.
func TestExamineAnotherPort(t *testing.T) {
	w := newWorld(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := &node{world: w, p: w.provider(nil), name: "n1", id: pki.NewID(),
		config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})}
	n.phases(n.plan().Phases...)
	look := func(level, text string) {
		t.Helper()
		found := n.p.Examine(t.Context(), providers.Examination{Objects: []providers.Examinee{{Addr: n.addr(), ID: n.id, Prior: n.prior, Config: n.config}}})
		if !slices.ContainsFunc(found, func(f providers.Finding) bool {
			return f.Check == "port" && f.Level == level && strings.Contains(f.Found, text)
		}) {
			t.Errorf("no port %s %q: %+v", level, text, found)
		}
	}
	look(providers.LevelOK, "the agent of node.n1 has it")
	n.config = nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(taken.Addr().String())})
	look(providers.LevelFail, taken.Addr().String()+" is taken by another program")
	n.config = nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})
	look(providers.LevelOK, "is free")
	n.config = cty.NilVal
	n.phases(n.plan().Phases...)
	w.nothingLeft()
}

var _ providers.Doctor = (*Provider)(nil)
var _ providers.Prober = (*host)(nil)
