package confdb

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// answer is what one node said of itself.
type answer struct {
	providers.Entry
	self client.Self
	err  error
}

func (a *answer) rank() int {
	switch {
	case a.err != nil:
		return 2
	case !a.self.Quorum:
		return 1
	}
	return 0
}

// How much longer a node that kept silent the last time is waited for once all others
// have answered: with the quorum among those, and without.
const (
	moment = 300 * time.Millisecond
	again  = time.Second
)

var errHangs = errors.New("it did not answer the last time, and not at once now")

// ask has every node say who it is, in parallel; answers are in the directory's order.
func (p *Provider) ask(ctx context.Context, c *client.Client) []answer { return p.hear(ctx, c, false) }

// hear is ask. With passing, nodes that did not answer the last time get only a
// moment more once some of the others have answered, and none of those is waited for
// any more: else each look at the cluster would wait seconds for agents that hang.
func (p *Provider) hear(ctx context.Context, c *client.Client, passing bool) []answer {
	nodes := p.env.Nodes.All()
	answers, hangs, waited := make([]answer, len(nodes)), make([]bool, len(nodes)), 0
	for i, n := range nodes {
		answers[i] = answer{Entry: n, err: errHangs}
		if hangs[i] = passing && p.env.Nodes.Silent(n.NodeID); !hangs[i] {
			waited++
		}
	}
	type told struct {
		i int
		answer
	}
	all := make(chan told, len(nodes)) // nobody waits for its reader
	run := ctx
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	for i, n := range nodes {
		asking.Go(func() {
			a := answer{Entry: n}
			if a.self, a.err = c.Self(ctx, n.Endpoint); a.err == nil {
				p.noteAge(&a)
			}
			all <- told{i, a}
		})
	}
	done := make(chan struct{})
	p.watching.Go(func() { // until the last has answered, or the run is over
		select {
		case <-done:
		case <-p.closed:
		}
		cancel()
		asking.Wait()
	})
	p.watching.Go(func() {
		asking.Wait()
		close(done)
	})
	some, quorum := false, false
	var late <-chan time.Time
	for rest := len(nodes); rest > 0; {
		select {
		case t := <-all:
			rest--
			answers[t.i] = t.answer
			if run.Err() == nil {
				p.note(&t.answer)
			}
			some = some || t.err == nil
			quorum = quorum || t.err == nil && t.self.Quorum
			if !hangs[t.i] {
				waited--
			}
		case <-late:
			rest = 0
		}
		switch {
		case waited > 0 || !some || late != nil:
		case quorum:
			late = time.After(moment)
		default:
			late = time.After(again)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.able, p.rank = true, make(map[string]int, len(answers))
	for i := range answers {
		p.able = p.able && !p.older[answers[i].NodeID]
		p.rank[answers[i].NodeID] = answers[i].rank()
	}
	return answers
}

// note keeps what a node said in time: who looks at it next need not ask it again.
func (p *Provider) note(a *answer) {
	var self *providers.Self
	if a.err == nil {
		self = &providers.Self{ClusterID: a.self.ClusterID, NodeID: a.self.NodeID, ServerID: a.self.ServerID, Membership: a.self.Membership,
			Quorum: a.self.Quorum, Version: a.self.Version, Program: a.self.Program, CertNotAfter: a.self.CertNotAfter}
	}
	p.env.Nodes.Heard(a.NodeID, a.Endpoint, self)
}

// noteAge keeps which agents are older ones, whenever they say so.
func (p *Provider) noteAge(a *answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.older == nil {
		p.older = map[string]bool{}
	}
	p.older[a.NodeID] = !slices.Contains(a.self.Features, client.FeatureChange)
}
