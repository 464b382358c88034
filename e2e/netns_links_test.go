package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Nodes on two links: while one of them is cut, or loses a fifth of its frames,
// the cluster tells of the link and nothing else happens; with both cut the
// group fails over, and healed all is as it was. Last no node reaches any other:
// the cluster tells of its lost quorum as soon as it has one again.
func TestNetnsLinks(t *testing.T) {
	if err := netlab.Allowed(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	t.Parallel()
	ctx := t.Context()
	c, err := faultlab.Up(ctx, faultlab.Config{Program: program, Dir: t.TempDir(), Nodes: 3, Links: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs := filepath.Join(t.ArtifactDir(), "logs")
			t.Logf("what the nodes said is kept in %s (go test -artifacts): %v", logs, faultlab.Keep(c, logs))
		}
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	run := func(args ...string) {
		t.Helper()
		if err := c.Run(ctx, append(args, "--dir", c.Dir)...); err != nil {
			t.Fatal(err)
		}
	}
	// lost is who hears whom not on which link, "n1<n2 on spare".
	lost := func(s client.Status) (all []string) {
		for _, n := range s.Nodes {
			for _, l := range n.Links {
				for _, other := range l.Lost {
					all = append(all, fmt.Sprintf("%s<%s on %s", n.Name, other, l.Link))
				}
			}
		}
		return all
	}
	until := func(what string, ok func(client.Status) bool) client.Status {
		t.Helper()
		s, err := c.Until(ctx, what, ok)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	whole := func(s client.Status) bool {
		on := 0
		for _, n := range s.Nodes {
			for _, l := range n.Links {
				if l.Address != "" {
					on++
				}
			}
		}
		return on == 6 && len(lost(s)) == 0 && s.Quorum.Have && s.Leader != "" && s.Groups[0].State == "online"
	}
	newest := func() uint64 {
		t.Helper()
		all, err := c.Events(ctx, 0)
		if err != nil || len(all) == 0 {
			t.Fatal(err)
		}
		return all[len(all)-1].ID
	}
	kinds := func(since uint64) (all []string) {
		t.Helper()
		events, err := c.Events(ctx, since)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			all = append(all, e.Kind)
		}
		return all
	}
	if _, err := c.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	s := until("every node is on both links", whole)
	// calm wants a fault that nothing but links is told of. On a machine that is
	// busy enough nodes are taken for down without any fault: it gets some tries.
	calm := func(what string, fault func()) (seen []string) {
		t.Helper()
		var tries [][]string
		for range 5 {
			since, was := newest(), s.Groups[0]
			fault()
			seen = kinds(since)
			moved := s.Groups[0].Owner != was.Owner || s.Groups[0].Epoch != was.Epoch
			if !moved && !slices.ContainsFunc(seen, func(kind string) bool { return !strings.HasPrefix(kind, "link_") }) {
				return seen
			}
			tries = append(tries, seen)
			s = until("all is well for another try", whole)
		}
		t.Errorf("%s, each time more happened than on the link: %q", what, tries)
		return seen
	}
	for _, network := range []string{faultlab.Spare, faultlab.Lan} {
		seen := calm("with "+network+" cut alone", func() {
			leader := s.Leader
			run("lab", "isolate", leader, "--network", network)
			// It may lead no more: the database's streams need a moment to find their way,
			// and who commits nothing for that long hands over. Followers hear the leader alone.
			s = until("one and the other end of "+network+" are told as lost", func(s client.Status) bool {
				all := lost(s)
				return slices.ContainsFunc(all, func(l string) bool { return strings.HasPrefix(l, leader+"<") && strings.HasSuffix(l, " on "+network) }) &&
					slices.ContainsFunc(all, func(l string) bool { return strings.HasSuffix(l, "<"+leader+" on "+network) })
			})
			if reason := faultlab.Node(s, leader).Reason; !strings.Contains(reason, "link "+network) {
				t.Errorf("with %s cut, status says of %s: %q", network, leader, reason)
			}
			run("lab", "heal")
			s = until("healed, "+network+" works again", whole)
		})
		if !slices.Contains(seen, "link_lost") || !slices.Contains(seen, "link_back") {
			t.Errorf("a cut of %s and its end are told as %q", network, seen)
		}
	}
	calm("with loss on one of two links", func() {
		run("lab", "loss", "20", "--network", faultlab.Lan)
		for range 20 { // a look takes a while, and the cluster has some frames to lose meanwhile
			if _, err := c.Status(ctx); err != nil {
				t.Fatal(err)
			}
		}
		run("lab", "heal")
		s = until("healed, all is well", whole)
	})
	owner := s.Groups[0].Owner
	run("lab", "isolate", owner, "--network", faultlab.Lan)
	run("lab", "isolate", owner, "--network", faultlab.Spare)
	until("the group is elsewhere", func(s client.Status) bool {
		return s.Quorum.Have && s.Groups[0].Owner != owner && s.Groups[0].State == "online" && faultlab.Node(s, owner).State == "down"
	})
	run("lab", "heal")
	until("healed, all is well", whole)
	if _, err := c.Settled(ctx); err != nil {
		t.Fatal(err)
	}

	// No two reach each other: status says since when, and afterwards the log.
	since := newest()
	for _, node := range c.Names() {
		run("lab", "isolate", node)
	}
	s = until("nobody has a quorum", func(s client.Status) bool { return !s.Quorum.Have && s.Quorum.LostSince != nil })
	if d := s.Time.Sub(*s.Quorum.LostSince); d < 0 || d > time.Minute {
		t.Errorf("status says that the quorum is lost since %s, at %s", s.Quorum.LostSince, s.Time)
	}
	until("the group has stopped", func(s client.Status) bool { return !s.Quorum.Have && s.Groups[0].State != "online" })
	run("lab", "heal")
	if _, err := c.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	// The newest state may still be that of before the loss, with its group online:
	// what was meanwhile is told within a moment.
	var got []string
	if _, err := c.Until(ctx, "the lost quorum and its return are told", func(client.Status) bool {
		got = kinds(since)
		return slices.Contains(got, "quorum_lost") && slices.Contains(got, "quorum_returned")
	}); err != nil {
		t.Errorf("a lost quorum and its return are told as %q: %v", got, err)
	}
}
