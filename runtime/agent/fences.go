package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/fence"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// fences runs what the member wants fenced, beside the loop: each job in a
// goroutine of its own, which answers with one FenceDone.
type fences struct {
	n      *Node
	runner *fence.Runner

	mu     sync.Mutex
	cancel map[uint64]context.CancelFunc // by job
	over   bool
}

func newFences(n *Node) *fences {
	return &fences{n: n, cancel: map[uint64]context.CancelFunc{}, runner: fence.New(fence.Config{
		Log: n.log, Dir: n.files.dir, NodeID: n.facts.NodeID, ClusterID: n.facts.ClusterID,
	})}
}

// run ends what has not begun to act when the agent ends. A device that was
// told something is not waited for: its agent is a process of its own.
func (f *fences) run(ctx context.Context) error {
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for _, cancel := range f.cancel {
		cancel()
	}
	return nil
}

func (f *fences) start(o member.StartFence) {
	ctx, cancel := context.WithCancel(context.Background())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		cancel()
		return
	}
	f.cancel[o.ID] = cancel
	go func() {
		r := f.runner.Run(ctx, fence.Job{Node: o.Node, Name: o.Name, Levels: o.Levels})
		cancel()
		f.mu.Lock()
		delete(f.cancel, o.ID)
		f.mu.Unlock()
		done := member.FenceDone{ID: o.ID, Cancelled: r.Cancelled, OK: r.OK, By: r.By, Err: r.Err}
		for _, u := range r.Uses {
			done.Uses = append(done.Uses, confdb.FenceUse{Fence: u.Fence, OK: u.OK, Error: u.Err})
		}
		f.n.input(done)
	}()
}

func (f *fences) stop(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cancel := f.cancel[id]; cancel != nil {
		cancel()
	}
}

// look has the agents of fences that are new or changed say what they think of
// their parameters, on this node; it is called in the loop.
func (f *fences) look(events []confdb.Event) {
	var check []spec.Fence
	for _, e := range events {
		if e.Kind != confdb.KindFenceAdded && e.Kind != confdb.KindFenceChanged {
			continue
		}
		for _, d := range f.n.member.State().Fences {
			if d.Spec.Addr.String() == e.Object && d.Spec.Agent != spec.FenceLocal {
				check = append(check, d.Spec)
			}
		}
	}
	if len(check) == 0 {
		return
	}
	slices.SortFunc(check, func(a, b spec.Fence) int { return strings.Compare(a.ID, b.ID) })
	check = slices.CompactFunc(check, func(a, b spec.Fence) bool { return a.ID == b.ID })
	go func() {
		for i := range check {
			problems := f.runner.Check(&check[i])
			if len(problems) == 0 {
				continue
			}
			text := "fence " + check[i].Name + " will not work from node " + f.n.facts.Name + ": " + strings.Join(problems, "; ")
			f.n.log.Warn("a fence will not work from here", "fence", check[i].Name, "why", problems)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, _ = f.n.Submit(ctx, confdb.Command{Event: &confdb.Event{ // the log above has it in any case
				Node: f.n.facts.Name, Object: check[i].Addr.String(), Kind: confdb.KindFenceProblem, Text: text,
			}})
			cancel()
		}
	}()
}
