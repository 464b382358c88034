package confdb

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

func put(t *testing.T, p *Provider) error {
	t.Helper()
	return p.write(t.Context(), func(c *client.Client) error {
		_, err := c.PutCluster(t.Context(), spec.Cluster{Name: "test"}, 0)
		return err
	})
}

func TestChangeLease(t *testing.T) {
	f := newFake(t, "n1", "n2")
	f.up()
	one, two := f.provider(), f.provider()
	defer one.Close()
	defer two.Close()

	one.Claim(Claim{ID: "a", What: "apply"})
	if err := one.Hold(t.Context()); err != nil || f.db.conf.Change == nil || f.db.conf.Change.ID != "a" {
		t.Fatalf("%+v, %v", f.db.conf.Change, err)
	}
	if err := put(t, one); err != nil || f.db.under[len(f.db.under)-1] != "a" {
		t.Errorf("written under %q, %v", f.db.under, err)
	}
	// A dead one: its successor takes it at once.
	next := f.provider()
	defer next.Close()
	next.Claim(Claim{ID: "b", What: "apply", From: "a"})
	if err := put(t, next); err != nil || f.db.conf.Change.ID != "b" {
		t.Fatalf("%+v, %v", f.db.conf.Change, err)
	}
	// Who can't know waits for a term without a renewal, by its own clock.
	var watched client.Change
	two.Claim(Claim{ID: "c", What: "destroy", Watching: func(h client.Change) { watched = h }})
	f.db.mu.Lock()
	f.db.conf.Change.TermMS = 700
	f.db.mu.Unlock()
	began := time.Now()
	if err := two.Hold(t.Context()); err != nil || f.db.conf.Change.ID != "c" || watched.ID != "b" {
		t.Fatalf("%+v, watched %+v, %v", f.db.conf.Change, watched, err)
	}
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("taken over after %v", took)
	}
	// One that is renewed is alive.
	f.db.mu.Lock()
	f.db.renewing = true
	f.db.mu.Unlock()
	last := f.provider()
	defer last.Close()
	last.Claim(Claim{ID: "d", What: "apply"})
	if err := last.Hold(t.Context()); !errors.Is(err, client.ErrChanging) || !strings.Contains(err.Error(), "locked") {
		t.Errorf("%v", err)
	}
	if err := put(t, last); !errors.Is(err, client.ErrChanging) {
		t.Errorf("a write: %v", err)
	}
	if err := two.GiveBack(context.Background(), false); err != nil || f.db.conf.Change != nil {
		t.Errorf("given back: %+v, %v", f.db.conf.Change, err)
	}
	if err := put(t, last); err != nil || f.db.conf.Change.ID != "d" {
		t.Errorf("%+v, %v", f.db.conf.Change, err)
	}
}

// Without a cluster, or with agents that don't know it, there is no lease; nor is
// a cluster without a quorum waited for.
func TestNoChangeLease(t *testing.T) {
	f := newFake(t, "n1")
	p := f.provider()
	defer p.Close()
	p.Claim(Claim{ID: "a", What: "apply"})
	if err := p.Hold(t.Context()); err != nil || f.db.conf.Change != nil {
		t.Errorf("no cluster: %+v, %v", f.db.conf.Change, err)
	}
	f.up()
	f.db.quorum = false
	if err := p.Hold(t.Context()); err != nil || f.db.conf.Change != nil {
		t.Errorf("no quorum: %+v, %v", f.db.conf.Change, err)
	}
	f.db.quorum, f.db.older = true, true
	if err := p.Hold(t.Context()); err != nil {
		t.Error(err)
	}
	if err := put(t, p); err != nil || f.db.conf.Change != nil {
		t.Errorf("older agents: %+v, %v", f.db.conf.Change, err)
	}
}

// While the cluster has no quorum nobody can renew: that time is not held against
// the holder, also where it has passed within one call.
func TestNoQuorumIsNoSilence(t *testing.T) {
	f := newFake(t, "n1")
	f.up()
	f.db.conf.Change = &client.Change{ID: "a", What: "apply", Renewed: 3, TermMS: 2000}
	p := f.provider()
	defer p.Close()
	have := func(quorum bool) {
		f.db.mu.Lock()
		f.db.quorum = quorum
		f.db.mu.Unlock()
	}
	back := make(chan time.Time, 1)
	p.Claim(Claim{ID: "b", What: "apply", Watching: func(client.Change) {
		have(false)
		time.AfterFunc(2500*time.Millisecond, func() {
			back <- time.Now()
			have(true)
		})
	}})
	if err := p.Hold(t.Context()); err != nil || f.db.conf.Change.ID != "b" {
		t.Fatalf("%+v, %v", f.db.conf.Change, err)
	}
	if took := time.Since(<-back); took < 2*time.Second {
		t.Errorf("taken over %v after the quorum was back", took)
	}
}

// An agent that was an older one when it answered last is one still while it is
// silent: it would stop at the lease. Once it answers anew it is asked.
func TestOlderAgentThatIsSilent(t *testing.T) {
	f := newFake(t, "n1", "n2")
	f.up()
	p := f.provider()
	defer p.Close()
	p.Claim(Claim{ID: "a", What: "apply"})
	for _, c := range []struct {
		what          string
		older, silent bool
		held          bool
	}{{"older", true, false, false}, {"older and silent", false, true, false}, {"upgraded", false, false, true}} {
		f.db.mu.Lock()
		f.db.older, f.nodes[1].silent = c.older, c.silent
		f.db.mu.Unlock()
		p.forget()
		if _, err := p.database(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := put(t, p); err != nil || (f.db.conf.Change != nil) != c.held {
			t.Errorf("%s: %+v, %v", c.what, f.db.conf.Change, err)
		}
	}
}

// A certificate lasts an hour, an apply or its wait for another's as long as it
// takes: it goes on with a new one.
func TestLongApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		identity, err := pki.NewIdentity("test")
		if err != nil {
			t.Fatal(err)
		}
		dir := &providers.Directory{}
		dir.Put(providers.Entry{NodeID: pki.NewID(), Name: "n1", Endpoint: "127.0.0.1:1"})
		p := New()
		if err := p.Configure(noValue, providers.Env{Identity: func() *pki.Identity { return identity }, Nodes: dir}); err != nil {
			t.Fatal(err)
		}
		first, err := p.api()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := p.api(); again != first || err != nil {
			t.Errorf("made anew at once: %v", err)
		}
		time.Sleep(pki.ClientLife - time.Minute)
		if later, err := p.api(); later == first || err != nil {
			t.Errorf("still asks with a certificate that is about to end: %v", err)
		}
	})
}

// Two agents hang, which is known by now: a look at the cluster does not wait for
// them. When one answers again, that is known as well.
func TestHungAgentsHoldNoLookUp(t *testing.T) {
	f := newFake(t, "n1", "n2", "n3", "n4", "n5")
	f.up()
	for _, n := range f.nodes[3:] {
		n.hangs = true
		f.dir.Heard(n.id, "", nil)
	}
	f.dir.Heard(f.nodes[2].id, "", nil)
	p := f.provider()
	live, err := p.Live(t.Context())
	if err != nil || !live.Quorum || len(live.Members) != 5 {
		t.Fatalf("%+v, %v", live, err)
	}
	if a, b := f.nodes[3].held.Load(), f.nodes[4].held.Load(); a != 1 || b != 1 {
		t.Errorf("the look waited for those that hang: they hold %d and %d calls of it", a, b)
	}
	if f.dir.Silent(f.nodes[2].id) || !f.dir.Silent(f.nodes[3].id) {
		t.Error("n3 answers now, n4 does not")
	}
	p.Close() // and the end of the run does not wait either
}

// Another cluster under the same run has an authority of its own: what is kept to ask
// the first one with is no good for it.
func TestAnotherClusterIsAskedAnew(t *testing.T) {
	f, next := newFake(t, "n1"), newFake(t, "n1")
	f.up()
	next.up()
	next.db.conf.Revision = 8
	p := f.provider()
	defer p.Close()
	if live, err := p.Live(t.Context()); err != nil || live.Revision != 7 {
		t.Fatalf("%+v, %v", live, err)
	}
	f.identity = next.identity
	f.dir.Remove(f.nodes[0].id)
	f.dir.Put(next.dir.All()[0])
	if live, err := p.Live(t.Context()); err != nil || live.Revision != 8 {
		t.Errorf("the other cluster: %+v, %v", live, err)
	}
}
