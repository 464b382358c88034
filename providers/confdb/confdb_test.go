package confdb

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/providertest"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

var noValue = cty.NilVal

func clusterValue(set map[string]cty.Value) cty.Value {
	all := map[string]cty.Value{"name": cty.StringVal("test"), "quorum": cty.ObjectVal(map[string]cty.Value{
		"model": cty.StringVal("majority_node_set"), "device": cty.NullVal(cty.String)})}
	for k, v := range set {
		all[k] = v
	}
	return providertest.Default(spec.ClusterSchema(), all)
}

func groupValue(set map[string]cty.Value) cty.Value {
	all := map[string]cty.Value{"name": cty.StringVal("web")}
	for k, v := range set {
		all[k] = v
	}
	return providertest.Default(spec.GroupSchema(), all)
}

var web = addr.Group("web", addr.NoKey)

func webResources() []providers.Resource {
	types := spec.ResourceTypes()
	vip := providertest.Default(types["ip_address"].WithCommon(), map[string]cty.Value{"address": cty.StringVal("127.0.0.9")})
	app := providertest.Default(types["generic_application"].WithCommon(), map[string]cty.Value{
		"command":     cty.ListVal([]cty.Value{cty.StringVal("sleep"), cty.StringVal("9")}),
		"environment": cty.MapVal(map[string]cty.Value{"A": cty.StringVal("<b>")}),
		"depends_on":  cty.ListVal([]cty.Value{cty.StringVal("vip")}),
	})
	return []providers.Resource{
		{Addr: web.WithResource("vip", addr.NoKey), ID: pki.NewID(), Type: "ip_address", Value: vip},
		{Addr: web.WithResource("app", addr.StringKey("a")), ID: pki.NewID(), Type: "generic_application", Value: app},
	}
}

func TestConformanceCluster(t *testing.T) {
	f := newFake(t, "n1", "n2", "n3")
	providertest.Run(t, providertest.Object{
		New:      func(*testing.T) providers.Provider { return f.provider() },
		Addr:     addr.Cluster(),
		Type:     addr.TypeCluster,
		ID:       f.identity.ID,
		Create:   clusterValue(nil),
		Update:   clusterValue(map[string]cty.Value{"description": cty.StringVal("new"), "max_unavailable": cty.NumberIntVal(2)}),
		Persists: true,
	})
	if !slices.Contains(f.db.calls, "POST "+client.PathBootstrap) || f.nodes[1].member || f.nodes[2].member {
		t.Errorf("bootstrapped: %v, n2 %v, n3 %v; want n1 alone", f.db.calls, f.nodes[1].member, f.nodes[2].member)
	}
}

func TestConformanceGroup(t *testing.T) {
	f := newFake(t, "n1", "n2")
	f.up()
	providertest.Run(t, providertest.Object{
		New:    func(*testing.T) providers.Provider { return f.provider() },
		Addr:   web,
		Type:   addr.TypeGroup,
		ID:     pki.NewID(),
		Create: groupValue(map[string]cty.Value{"preferred_owners": cty.ListVal([]cty.Value{cty.StringVal("n2"), cty.StringVal("n1")})}),
		Update: groupValue(map[string]cty.Value{"priority": cty.NumberIntVal(3000), "stop_within": cty.StringVal("200ms"),
			"demand": cty.MapVal(map[string]cty.Value{"cpu": cty.NumberIntVal(2000)})}),
		Resources: webResources(),
	})
}

// The lifecycle's own view of /v1/self reads what the API writes.
func TestSelfIsAPartOfTheAPIs(t *testing.T) {
	api := reflect.TypeFor[client.Self]()
	for _, f := range reflect.VisibleFields(reflect.TypeFor[providers.Self]()) {
		other, ok := api.FieldByName(f.Name)
		if !ok || other.Tag != f.Tag || other.Type != f.Type {
			t.Errorf("%s %s %q: the API has %s %q", f.Name, f.Type, f.Tag, other.Type, other.Tag)
		}
	}
}

func TestBootstrapOnceOnly(t *testing.T) {
	c := providers.ApplyRequest{Addr: addr.Cluster(), Type: addr.TypeCluster, Phase: providers.PhaseBootstrap, Planned: clusterValue(nil)}
	t.Run("a silent node that ran before may be the first", func(t *testing.T) {
		f := newFake(t, "n1", "n2")
		c.ID = f.identity.ID
		f.nodes[0].http.Close()
		_, err := f.provider().Apply(t.Context(), c)
		if !errors.Is(err, providers.ErrUnreachable) || !strings.Contains(err.Error(), "n1 ran before") {
			t.Errorf("%v", err)
		}
		if f.nodes[1].member {
			t.Error("a second cluster was made")
		}
	})
	t.Run("a silent node that never ran does not hold it up", func(t *testing.T) {
		f := newFake(t, "n1", "n2")
		c.ID = f.identity.ID
		f.nodes[0].http.Close()
		e := f.dir.All()[0]
		f.dir.Remove(e.NodeID)
		f.dir.Put(providers.Entry{NodeID: e.NodeID, Name: e.Name, Endpoint: e.Endpoint})
		if _, err := f.provider().Apply(t.Context(), c); err != nil || !f.nodes[1].member {
			t.Errorf("%v, n2 %v", err, f.nodes[1].member)
		}
	})
	t.Run("a member of a database that can't be read has a word in it", func(t *testing.T) {
		f := newFake(t, "n1", "n2")
		c.ID = f.identity.ID
		f.nodes[1].unread = true
		if _, err := f.provider().Apply(t.Context(), c); err == nil || f.nodes[0].member {
			t.Errorf("a second cluster was made: %v", err)
		}
	})
	t.Run("never on a node without a vote", func(t *testing.T) {
		f := newFake(t, "n1", "n2")
		c.ID = f.identity.ID
		e := f.dir.All()[0]
		e.Spec.Votes = 0
		f.dir.Put(e)
		other := f.dir.All()[1]
		f.dir.Remove(other.NodeID)
		if _, err := f.provider().Apply(t.Context(), c); !errors.Is(err, providers.ErrUnreachable) || !strings.Contains(err.Error(), "n1 answers, and has votes = 0") || f.nodes[0].member {
			t.Errorf("alone: %v, n1 %v", err, f.nodes[0].member)
		}
		f.dir.Put(other)
		if _, err := f.provider().Apply(t.Context(), c); err != nil || f.nodes[0].member || !f.nodes[1].member {
			t.Errorf("%v, members: %v %v; want n2", err, f.nodes[0].member, f.nodes[1].member)
		}
	})
	t.Run("not on a witness, and not where one is the first already", func(t *testing.T) {
		f := newFake(t, "n1", "n2", "n3")
		c.ID = f.identity.ID
		e := f.dir.All()[0]
		e.Spec.Role = spec.RoleWitness
		f.dir.Put(e)
		for range 2 { // the second is an apply that follows one that was cut off
			if _, err := f.provider().Apply(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		if f.nodes[0].member || !f.nodes[1].member || f.nodes[2].member {
			t.Errorf("members: %v %v %v; want n2 alone", f.nodes[0].member, f.nodes[1].member, f.nodes[2].member)
		}
	})
}

// Where one node is a member that has not read its database, there is a cluster, whatever
// the others wait for: it is waited for once, and then can't be told.
func TestMembersThatHaveNotRead(t *testing.T) {
	for _, older := range []bool{false, true} {
		for unread := range 3 {
			f := newFake(t, "n1", "n2", "n3")
			f.nodes[unread].unread, f.db.older = true, older
			p := f.provider()
			p.unreadBy = time.Now() // its time is over
			live, err := p.Live(t.Context())
			if !errors.Is(err, providers.ErrNoQuorum) || live != nil {
				t.Errorf("node %d of three, older agents %v: %+v, %v", unread, older, live, err)
			}
			f.up()
			f.nodes[0].member, f.nodes[1].member, f.nodes[2].member = false, false, false
			f.nodes[unread].looks = 2
			p = f.provider()
			if live, err = p.Live(t.Context()); err != nil || live == nil || live.Revision != 7 {
				t.Errorf("node %d of three reads a moment later, older agents %v: %+v, %v", unread, older, live, err)
			}
		}
	}
}

func TestWithoutQuorum(t *testing.T) {
	f := newFake(t, "n1", "n2", "n3")
	f.up()
	f.db.quorum = false
	old := f.db.conf
	old.Revision, old.Groups = 3, nil
	f.nodes[0].lag = &old
	f.db.conf.Groups = []client.ConfigGroup{{Spec: spec.Group{ID: "g1", Name: "web", Addr: web, ManagedBy: spec.ManagedBy}, Owner: "n1", Home: "n2"}}
	f.nodes[2].http.Close()
	p := f.provider()
	live, err := p.Live(t.Context())
	if err != nil || live.Revision != 7 || live.Quorum || len(live.Groups) != 1 {
		t.Fatalf("live: %+v, %v; want the newest copy that answers", live, err)
	}
	if g := live.Groups[0]; g.Owner != f.nodes[0].id || g.Home != f.nodes[1].id {
		t.Errorf("on %q, at home on %q; want the ids of n1 and n2", g.Owner, g.Home)
	}
	res, err := p.Read(t.Context(), providers.ReadRequest{Addr: web, Type: addr.TypeGroup, ID: "g1"})
	if err != nil || res.Object == nil || !res.NoQuorum || res.AsOf != 7 {
		t.Errorf("read: %+v, %v", res, err)
	}
	if _, err := p.Read(t.Context(), providers.ReadRequest{Addr: web, Type: addr.TypeGroup, ID: "g2"}); !errors.Is(err, providers.ErrUnreachable) {
		t.Errorf("a group that the copy does not hold is not gone for sure: %v", err)
	}
	if _, err := p.MemberState(t.Context(), "x"); !errors.Is(err, providers.ErrNoQuorum) {
		t.Errorf("nor is a member: %v", err)
	}
	for _, n := range f.nodes {
		n.http.Close()
	}
	if _, err := f.provider().Live(t.Context()); !errors.Is(err, providers.ErrUnreachable) {
		t.Errorf("nobody answers: %v", err)
	}
}

// What was read of the database is kept until it is let go of.
func TestForget(t *testing.T) {
	f := newFake(t, "n1")
	f.up()
	f.db.conf.Groups = []client.ConfigGroup{{Spec: spec.Group{ID: "g1", Name: "web", Addr: web, ManagedBy: spec.ManagedBy}}}
	p := f.provider()
	defer p.Close()
	if _, err := p.Live(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.db.mu.Lock()
	f.db.conf.Groups = nil
	f.db.mu.Unlock()
	for _, there := range []bool{true, false} {
		res, err := p.Read(t.Context(), providers.ReadRequest{Addr: web, Type: addr.TypeGroup, ID: "g1"})
		if err != nil || res.Object != nil != there {
			t.Errorf("%+v, %v, want it there: %v", res, err, there)
		}
		p.Forget()
	}
}

func TestNoClusterForSure(t *testing.T) {
	f := newFake(t, "n1", "n2")
	if live, err := f.provider().Live(t.Context()); live != nil || err != nil {
		t.Errorf("all wait: %+v, %v", live, err)
	}
	f.nodes[1].http.Close()
	if live, err := f.provider().Live(t.Context()); !errors.Is(err, providers.ErrUnreachable) || !strings.Contains(err.Error(), "n2 may hold") {
		t.Errorf("n2 may hold it: %+v, %v", live, err)
	}
}

func TestGroupOutcomes(t *testing.T) {
	f := newFake(t, "n1")
	f.up()
	put := func(ctx context.Context, value cty.Value, progress func(string)) error {
		res, err := f.provider().Apply(ctx, providers.ApplyRequest{Addr: web, Type: addr.TypeGroup, ID: "g1", Planned: value, Resources: webResources(), Progress: progress})
		if err != nil && ctx.Err() == nil && res.Object == nil {
			t.Errorf("the group is in the database, but the answer doesn't hold it")
		}
		return err
	}
	failed := client.StatusGroup{State: spec.StateFailed, Owner: "n1", Reason: "left failed: 3 failovers in 6h",
		Resources: []client.StatusResource{{Name: "app-a", State: spec.StateFailed, Reason: "exit status 3"}}}
	f.db.outcome["web"] = failed
	err := put(t.Context(), groupValue(nil), nil)
	for _, word := range []string{"group web", "failed on n1", "app-a: exit status 3", "left failed", "clusterplan logs web"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
	// Those that nobody starts are not waited for.
	for _, set := range []map[string]cty.Value{{"priority": cty.Zero}, {"persistent_state": cty.StringVal("offline")}} {
		if err := put(t.Context(), groupValue(set), nil); err != nil {
			t.Errorf("%v: %v", set, err)
		}
	}
	// One that is pending is, until it is online, and says what it waits for.
	pending := failed
	pending.State, pending.Reason = spec.StatePending, ""
	pending.Resources = []client.StatusResource{{Name: "app-a", State: spec.StateOnlinePending, Reason: "waits for its check"}}
	f.db.outcome["web"] = pending
	var told []string
	err = put(t.Context(), groupValue(nil), func(text string) {
		told = append(told, text)
		delete(f.db.outcome, "web") // the fake's lock is free between two of its answers
	})
	if err != nil || !slices.Equal(told, []string{"app-a: online_pending (waits for its check)"}) {
		t.Errorf("%v, told %q", err, told)
	}
	// A group of someone else is left alone.
	f.db.conf.Groups[0].Spec.ManagedBy = "terraform"
	_, err = f.provider().Apply(t.Context(), providers.ApplyRequest{Addr: web, Type: addr.TypeGroup, ID: "g1", Planned: noValue})
	if err == nil || !strings.Contains(err.Error(), `managed by "terraform"`) || len(f.db.conf.Groups) != 1 {
		t.Errorf("delete of another's group: %v", err)
	}
}

// Drain and Resume leave an operator's order as it was.
func TestDrainKeepsOperatorsPause(t *testing.T) {
	f := newFake(t, "n1", "n2")
	f.up()
	f.db.conf.Groups = []client.ConfigGroup{{Spec: spec.Group{ID: "g1", Name: "web", Addr: web}, Owner: "n1"}}
	p, id := f.provider(), f.nodes[0].id
	member := &f.db.conf.Members[0]
	check := func(want string, drained bool) {
		t.Helper()
		got := ""
		if member.Paused != nil {
			got = member.Paused.Reason
		}
		if got != want || member.Drained != drained {
			t.Errorf("reason %q, drained %v; want %q, %v", got, member.Drained, want, drained)
		}
		st, err := p.MemberState(t.Context(), id)
		if err != nil || st.DrainedByApply != (drained && strings.HasPrefix(want, drainMark)) {
			t.Errorf("member state %+v, %v", st, err)
		}
	}
	if err := p.Drain(t.Context(), id, "restart"); err != nil {
		t.Fatal(err)
	}
	check("apply: restart", true)
	if err := p.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	check("", false)
	member.Paused = &client.Intent{Author: "ann", Reason: "disk: soon", Time: time.Now()}
	if err := p.Drain(t.Context(), id, "restart"); err != nil {
		t.Fatal(err)
	}
	check("apply: restart; before: paused by ann: disk: soon", true)
	if err := p.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	check("disk: soon (ordered by ann, before an apply)", false)
	if err := p.Resume(t.Context(), id); err != nil { // not ours: stays
		t.Fatal(err)
	}
	check("disk: soon (ordered by ann, before an apply)", false)
}

// A group whose stop fails keeps its node from being touched: that its owner has not
// changed for a while does not make it down. It has the time that its stop may take;
// one that only has nowhere to go stays, and ends with its node. A node that is down
// does not tell how its stops go on: it may leave, also where no other node may have
// the group.
func TestDrainWaitsForStops(t *testing.T) {
	const stop = 300 * time.Millisecond
	for _, c := range []struct {
		name, state string
		ends        bool   // once it has been waited for as long as for one that stays
		dies        bool   // its node, meanwhile
		want        string // "": no error
	}{
		{"nowhere to go", spec.StateOnline, false, false, ""},
		{"slow", spec.StateOfflinePending, true, false, ""},
		{"cut off with its node", spec.StateOfflinePending, false, true, ""},
		{"failed", spec.StateOfflinePending, false, false, "group web is stuck on it: its stop has not come to an end for 350ms (disk: offline_pending (its stop command failed and is run again: busy)), so it may start on no other node, and this one is left running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, "n1", "n2")
			f.up()
			f.db.stays = true
			f.db.conf.Groups = []client.ConfigGroup{{Owner: "n1", Spec: spec.Group{ID: "g1", Name: "web", Addr: web, Resources: []spec.Resource{
				{Name: "disk", Type: "script", Attributes: map[string]any{"stop_timeout": stop.String()}},
			}}}}
			r := client.StatusResource{Name: "disk", State: c.state}
			if c.state == spec.StateOfflinePending {
				r.Reason = "its stop command failed and is run again: busy"
			}
			f.db.outcome["web"] = client.StatusGroup{State: spec.StatePending, Owner: "n1", Resources: []client.StatusResource{r}}
			asked := 0
			f.db.told = func() {
				if asked++; c.ends && asked > 2 {
					f.db.outcome["web"] = client.StatusGroup{State: spec.StatePending, Owner: "n2"}
				}
				if c.dies {
					f.db.conf.Members[0].Node = spec.NodeDown
				}
			}
			p := f.provider()
			p.leaveWait = stop / 6
			err := p.Drain(t.Context(), f.nodes[0].id, "restart")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Error(err)
			}
		})
	}
}

// A single node's cluster may become a majority's; no other change of the
// quorum is planned, and each is refused with what to do.
func TestQuorumChanges(t *testing.T) {
	single, device, majority := spec.Quorum{Model: spec.SingleNode}, spec.Quorum{Model: spec.SingleQuorum, Device: "/dev/q"}, spec.Quorum{Model: spec.MajorityNodeSet}
	for _, c := range []struct {
		is, next   spec.Quorum
		path, want string // "": planned
	}{
		{single, majority, "", ""},
		{majority, single, "model", "keep majority_node_set and remove the other nodes"},
		{majority, device, "model", "from majority_node_set to single_quorum: keep majority_node_set; else"},
		{single, device, "model", "use majority_node_set"},
		{device, majority, "model", "from single_quorum to majority_node_set: keep single_quorum; else"},
		{device, single, "model", "from single_quorum to single_node: keep single_quorum; else"},
		{device, spec.Quorum{Model: spec.SingleQuorum, Device: "/dev/other"}, "device", "from /dev/q to /dev/other: keep it"},
	} {
		prior, err := clusterObject(spec.Cluster{ID: "x", Name: "test", Quorum: c.is})
		if err != nil {
			t.Fatal(err)
		}
		next, err := clusterObject(spec.Cluster{ID: "x", Name: "test", Quorum: c.next})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := New().Plan(providers.PlanRequest{Type: addr.TypeCluster, Prior: prior, Config: next.Value})
		if c.want == "" {
			if err != nil || resp.Impact != spec.ImpactMembership || !slices.Equal(resp.Phases, []string{providers.PhaseUpdate}) {
				t.Errorf("%v to %v: %+v, %v", c.is, c.next, resp, err)
			}
			continue
		}
		var path cty.PathError
		if !errors.As(err, &path) || !path.Path.Equals(cty.GetAttrPath("quorum").GetAttr(c.path)) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v to %v: %v", c.is, c.next, err)
		}
	}
}
