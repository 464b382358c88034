package confdb_test

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// What a takeover waits for a watchdog grows with what the owner may run, and with
// its watchdog, at once; it shrinks with the next owner alone.
func TestWatchdogOfAnOwner(t *testing.T) {
	s := confdb.NewState()
	n := 0
	must := func(c confdb.Command) {
		t.Helper()
		n++
		c.ID = string(rune('a' + n))
		if r := s.Apply(c); r.Code != "" {
			t.Fatalf("%s: %s", r.Code, r.Detail)
		}
	}
	node := func(device string, seconds int) confdb.Command {
		return confdb.Command{PutNode: &confdb.PutNode{ServerID: 1, Endpoint: "a:1", Spec: spec.Node{
			ID: "n1", Name: "n1", Votes: 1, Role: spec.RoleMember, Watchdog: device, WatchdogTimeout: spec.Duration(seconds) * spec.Duration(time.Second)}}}
	}
	group := func(kind string) confdb.Command {
		return confdb.Command{PutGroup: &spec.Group{ID: "g1", Name: "g", Resources: []spec.Resource{{Name: "a", Type: kind, Attributes: map[string]any{"address": "10.0.0.9"}}}}}
	}
	epoch := uint64(0)
	assign := func() confdb.Command {
		epoch++
		return confdb.Command{Assign: &confdb.Assign{Group: "g1", From: epoch - 1, Node: "n1"}}
	}
	for i, step := range []struct {
		do   confdb.Command
		want int // seconds
	}{
		{node("/dev/watchdog", 5), 0}, {group("ip_address"), 0}, {assign(), 0},
		{group("script"), 5}, {node("/dev/watchdog", 9), 9}, {node("/dev/watchdog", 3), 9},
		{group("ip_address"), 9}, {node("", 0), 9}, {assign(), 0},
		{node("/dev/watchdog", 0), 0}, {group("script"), 5}, {assign(), 5},
	} {
		must(step.do)
		var got spec.Duration
		if g := s.Groups["g1"]; g != nil {
			got = g.Owner.Watchdog
		}
		if want := spec.Duration(step.want) * spec.Duration(time.Second); got != want {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
	}
}
