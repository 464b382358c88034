package view

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// What is as it is by default is counted, what was written is shown.
func TestDefaults(t *testing.T) {
	text := func(path, v string) planner.AttributeChange {
		return planner.AttributeChange{Path: path, After: cty.StringVal(v)}
	}
	heartbeat := cty.ObjectVal(map[string]cty.Value{"profile": cty.StringVal("custom"), "interval": cty.StringVal("100ms"), "stop_within": cty.StringVal("1s")})
	web := addr.Group("web", addr.NoKey)
	p := &planner.Plan{Complete: true, Changes: []planner.Change{
		{Address: addr.Cluster(), Type: addr.TypeCluster, Actions: planner.ActionCreate, After: cty.ObjectVal(map[string]cty.Value{"heartbeat": heartbeat}),
			Attributes: []planner.AttributeChange{text("heartbeat.interval", "100ms"), text("heartbeat.lease", "1.2s"), text("heartbeat.profile", "custom"), text("heartbeat.stop_within", "1s")}},
		{Address: web, Type: addr.TypeGroup, Actions: planner.ActionCreate, Attributes: []planner.AttributeChange{
			{Path: "failover.threshold", After: cty.NumberIntVal(0)}, text("no_quorum", "freeze"), {Path: "priority", After: cty.NumberIntVal(2000)}, text("stop_within", "1s")}},
		{Address: addr.Group("other", addr.NoKey), Type: addr.TypeGroup, Actions: planner.ActionUpdate, Attributes: []planner.AttributeChange{
			{Path: "failover.threshold", Before: cty.NumberIntVal(2), After: cty.NumberIntVal(0)}}},
		{Address: web.WithResource("app", addr.NoKey), Type: "generic_application", Actions: planner.ActionCreate, Attributes: []planner.AttributeChange{
			text("log_max_size", "10MiB"), {Path: "restart.delay", After: cty.UnknownVal(cty.String)}, text("stop_signal", "INT")}},
		{Address: node("n1"), Type: addr.TypeNode, Actions: planner.ActionUpdate, Attributes: []planner.AttributeChange{
			{Path: "program", Before: cty.StringVal(strings.Repeat("ab", 32)), After: cty.StringVal(strings.Repeat("cd", 32))}}},
	}}
	var b bytes.Buffer
	if err := (Style{}).Plan(&b, p); err != nil {
		t.Fatal(err)
	}
	golden(t, "defaults.txt", b.String())
}

// An event says once on which node it was.
func TestEvent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	var b bytes.Buffer
	for _, e := range []client.Event{
		{Time: at, Kind: "node_down", Object: "node.n1", Node: "n1", Text: "node n1 is down"},
		{Time: at, Kind: "group_failover", Object: "group.web", Node: "n2", Text: "group web fails over from node n1, which is down, to node n2"},
		{Time: at, Kind: "resource_failed", Object: "group.web", Node: "n1", Text: "resource app of group web failed: node n10 refused"},
		{Time: at, Kind: "node_drained", Object: "node.n1", Node: "n1", Text: "node n1: no groups", Author: "anna"},
	} {
		if err := (Style{}).Event(&b, e); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "events.txt", b.String())
}
