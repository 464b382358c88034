package core

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// What an owner reports follows from the newest that made it so: of a group that
// it owned before it was lost, its own coming back, not the order of long ago.
func TestReportCause(t *testing.T) {
	const up, down, assigned, failed = confdb.KindNodeUp, confdb.KindNodeDown, confdb.KindGroupAssigned, KindResourceFailed
	type event struct{ kind, object, node string }
	for _, tc := range []struct {
		name   string
		events []event
		want   uint64
	}{
		{"started", []event{{up, "node.n1", "n1"}, {assigned, "group.web", "n1"}}, 2},
		{"back", []event{{assigned, "group.web", "n1"}, {down, "node.n1", "n1"}, {up, "node.n1", "n1"}}, 3},
		{"the device is back", []event{{assigned, "group.web", "n1"}, {confdb.KindDeviceBack, "cluster", "n2"}}, 2},
		{"failed since", []event{{up, "node.n1", "n1"}, {assigned, "group.web", "n1"}, {failed, "group.web", "n1"}}, 3},
		{"others come and go", []event{{assigned, "group.web", "n1"}, {up, "node.n2", "n2"}, {assigned, "group.db", "n1"}}, 1},
	} {
		m := &Machine{state: confdb.NewState(), cfg: Config{Name: "n1"}}
		for i, e := range tc.events {
			m.state.Events = append(m.state.Events, confdb.Event{ID: uint64(i + 1), Kind: e.kind, Object: e.object, Node: e.node})
		}
		if got := m.reportCause(&run{object: "group.web"}); got != tc.want {
			t.Errorf("%s: follows from %d, want %d", tc.name, got, tc.want)
		}
	}
}

// A group fails back because the node that it goes to came up. Its first home may be
// down all the while.
func TestFailbackCause(t *testing.T) {
	m := &Machine{state: confdb.NewState(), lead: &leadership{}}
	for i, e := range []confdb.Event{
		{Kind: confdb.KindNodeUp, Node: "n1"}, {Kind: confdb.KindNodeDown, Node: "n1"},
		{Kind: confdb.KindNodeUp, Node: "n2"}, {Kind: confdb.KindNodeUp, Node: "n3"},
	} {
		e.ID = uint64(i + 1)
		m.state.Events = append(m.state.Events, e)
	}
	m.state.Nodes["1"] = &confdb.Node{Spec: spec.Node{Name: "n1"}}
	if got := m.orderEvent(&confdb.Group{HomeFrom: "1"}, WhyFailback, "n2"); got != 3 {
		t.Errorf("follows from event %d, want 3: n2 is up", got)
	}
}
