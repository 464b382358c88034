package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/quorum"
)

// electionWait is how long a quorum may be away without a word: agents that were
// started a moment ago elect a leader first.
const electionWait = 2 * time.Second

// awaitQuorum waits until the cluster can commit. It is what the database
// steps stand behind: agents that were just started need an election first.
func (r *runner) awaitQuorum(ctx context.Context) error {
	if !r.hasLive() {
		return nil
	}
	began, told := r.now(), false
	deadline := began.Add(r.cfg.QuorumWait)
	for {
		var world planner.World
		refresh.Live(ctx, r.cfg.Providers, &world)
		why := world.LiveErr
		if world.Live != nil {
			if world.Live.Quorum {
				return nil
			}
			why = fmt.Sprintf("the nodes that answer hold revision %d and are no majority", world.Live.Revision)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if world.Live == nil && world.LiveErr == "" {
			return errors.New("the nodes answer, but none of them holds the cluster's database any more: their data directories are gone; apply again, and it makes the cluster anew")
		}
		if !r.now().Before(deadline) {
			return fmt.Errorf("%w within %s: %s; start the other nodes' hosts, or mend the network between the nodes, and apply again", providers.ErrNoQuorum, r.cfg.QuorumWait, why)
		}
		if !told && r.now().Sub(began) > electionWait {
			told = true
			r.emit(Event{Type: EventWaiting, Text: fmt.Sprintf("waiting for a quorum, for up to %s: %s", r.cfg.QuorumWait, why)})
		}
		select {
		case <-r.cfg.Stop:
			return errStopped // nothing is under way: nobody has to wait for the end of this
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(r.cfg.Poll):
		}
	}
}

// errStopped ends a wait that the user has ended.
var errStopped = errors.New("interrupted")

func (r *runner) hasLive() bool {
	for _, name := range r.cfg.Providers.Names() {
		if p, err := r.cfg.Providers.Provider(name); err == nil {
			if _, ok := p.(providers.LiveReader); ok {
				return true
			}
		}
	}
	return false
}

// mayTake refuses a phase that takes a vote away and would leave the cluster
// without quorum now, whatever the plan thought: nodes may have failed since.
// Nodes that this run has just started are waited for: the cluster takes a
// moment until it holds them for up.
func (r *runner) mayTake(ctx context.Context, j *job, phase string) error {
	if phase == providers.PhaseDrain || phase == providers.PhaseDemote { // both take the lead away
		if err := r.awaitStarted(ctx, j); err != nil {
			return err
		}
	}
	if phase == providers.PhaseDrain {
		// No group has to move for what would be refused a moment later.
		i := slices.IndexFunc(slices.Concat(j.u.Remove, j.u.Phases), takesVote)
		if i < 0 {
			return nil
		}
		phase = slices.Concat(j.u.Remove, j.u.Phases)[i]
	}
	deadline := r.now().Add(r.cfg.QuorumWait)
	heard := r.now().Add(min(electionWait, r.cfg.QuorumWait)) // a new leader takes a moment to hear of the others
	for {
		err := r.mayTakeNow(ctx, j, phase)
		switch {
		case !errors.Is(err, providers.ErrNoQuorum):
			return err
		case r.othersOut(j): // they come back; who waits here keeps none of them back
			deadline = r.now().Add(r.cfg.QuorumWait)
		case r.now().Before(heard):
		case !r.startedOthers(j) || !r.now().Before(deadline):
			return err
		}
		if !sleep(ctx, r.cfg.Poll) {
			return err
		}
	}
}

// taken is a node whose vote this run takes away: the cluster may hold it for up a
// while longer, and nodes of one batch ask at the same moment.
type taken struct {
	id      string
	stopped bool // its agent may be
	over    bool // its unit has ended, and did not bring it back
}

// othersOut tells whether units under way have taken other nodes' votes.
func (r *runner) othersOut(j *job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, t := range r.taken {
		if a != j.u.Key.Addr && !t.over {
			return true
		}
	}
	return false
}

// stops notes that a node's agent is stopped now.
func (r *runner) stops(a addr.Address) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.taken[a]; ok {
		t.stopped = true
		r.taken[a] = t
	}
}

// ended gives back what a unit has taken, unless its node's agent stays stopped.
func (r *runner) ended(u *planner.Unit, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.taken[u.Key.Addr]
	switch {
	case !ok:
	case !t.stopped || err == nil && slices.Contains(u.Phases, providers.PhaseStart):
		delete(r.taken, u.Key.Addr)
	default:
		t.over = true
		r.taken[u.Key.Addr] = t
	}
}

// awaitStarted waits, before a node is drained or gives its vote up, until the
// cluster holds those for up that this run has started: its groups may go there, as
// the plan said. Before the leader goes they have to have run for a takeover wait as
// well: until then a new leader gives them no lease, for it can't know that nothing
// runs of their former life, and groups that came meanwhile would stop. One that does
// not come keeps nobody back for longer than QuorumWait, nor the next ones once more.
func (r *runner) awaitStarted(ctx context.Context, j *job) error {
	if r.work.Destroy || r.work.First || !r.hasLive() {
		return nil
	}
	r.mu.Lock()
	started, newest := map[string]bool{}, time.Time{} // by id
	for a, at := range r.ran {
		if a != j.u.Key.Addr {
			started[r.ids[a]] = true
			if at.After(newest) {
				newest = at
			}
		}
	}
	r.mu.Unlock()
	if len(started) == 0 {
		return nil
	}
	var down []string // ids
	for deadline := r.now().Add(r.cfg.QuorumWait); r.now().Before(deadline); {
		var world planner.World
		refresh.Live(ctx, r.cfg.Providers, &world)
		down = nil
		if world.Live != nil && world.Live.Quorum {
			for _, m := range world.Live.Members {
				if started[m.Spec.ID] && m.Node == spec.NodeDown {
					down = append(down, m.Spec.ID)
				}
			}
		}
		if world.Live != nil && world.Live.Quorum && len(down) == 0 && (world.Live.Leader != j.id || r.now().Sub(newest) > longestTakeover(world.Live)) {
			return nil
		}
		if !sleep(ctx, r.cfg.Poll) {
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.ran, func(a addr.Address, _ time.Time) bool { return slices.Contains(down, r.ids[a]) })
	return nil
}

// longestTakeover is the longest takeover wait of the groups that there are.
func longestTakeover(live *providers.Live) time.Duration {
	t := live.Cluster.Timings()
	longest := t.TakeoverWaitWith(t.StopWithin, 0)
	for i := range live.Groups {
		if s := live.Groups[i].Spec.StopWithin; s != 0 {
			longest = max(longest, t.TakeoverWaitWith(s, 0))
		}
	}
	return longest
}

// startedOthers tells whether this run has started another node.
func (r *runner) startedOthers(j *job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, phases := range r.done {
		if a != j.u.Key.Addr && a.Type == addr.TypeNode && slices.Contains(phases, providers.PhaseStart) {
			return true
		}
	}
	return false
}

// takesVote tells whether a phase takes a node's vote away, for a while or for good.
func takesVote(phase string) bool {
	return phase == providers.PhaseStop || phase == providers.PhaseDemote || phase == providers.PhaseLeave
}

// reachable refuses to work on a node that the plan could not reach and that can't
// be reached now either, before its groups are sent away for nothing.
func (r *runner) reachable(ctx context.Context, j *job) error {
	u := j.u
	if !u.Silent || u.Action != "update" || u.Key.Stage != planner.StageRoll || !slices.Contains(u.Phases, providers.PhaseStop) {
		return nil
	}
	if _, err := j.provider.Read(ctx, providers.ReadRequest{Addr: u.Key.Addr, Type: u.Type, ID: j.id, Prior: j.prior}); errors.Is(err, providers.ErrUnreachable) {
		return err
	}
	return nil
}

// giveVote has a node that can't be reached give its vote up, if it is to: that asks
// the cluster alone, and other nodes may have to wait for it. It returns what remains
// of the unit, an error.
func (r *runner) giveVote(ctx context.Context, j *job, unreachable error) (string, error) {
	if !slices.Contains(j.u.Phases, providers.PhaseDemote) {
		return "", unreachable
	}
	u, alone := *j.u, *j
	u.Phases, u.Last = []string{providers.PhaseDemote}, false
	alone.u, alone.id = &u, r.giveID(u.Key.Addr, u.ID)
	if err := r.aim(&alone); err != nil {
		return "", err
	}
	if phase, err := r.phases(ctx, &alone); err != nil {
		return phase, err
	}
	return "", fmt.Errorf("it has given its vote up, and the rest waits until it can be reached: mend its host or the way to it, and apply again: %w", unreachable)
}

func (r *runner) mayTakeNow(ctx context.Context, j *job, phase string) error {
	if j.u.Key.Addr.Type != addr.TypeNode || r.work.Destroy || r.work.First || r.work.AllowQuorumLoss || !r.hasLive() {
		return nil
	}
	if !takesVote(phase) {
		return nil
	}
	var world planner.World
	refresh.Live(ctx, r.cfg.Providers, &world)
	if j.u.Key.Stage == planner.StageUp && (world.Live == nil || !world.Live.Quorum) {
		return nil // an agent that hangs, and no quorum that its end could take away
	}
	if world.Live == nil {
		return fmt.Errorf("%w: %s may take the quorum away, and the cluster can't be asked: %s", providers.ErrUnreachable, phase, world.LiveErr)
	}
	if world.Live.Cluster.Quorum.Model == spec.SingleNode {
		return nil
	}
	votes, up, mine := 0, 0, false
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.taken, j.u.Key.Addr)
	out := map[string]bool{}
	for _, t := range r.taken {
		out[t.id] = true
	}
	for _, m := range world.Live.Members {
		if m.State != "voter" {
			continue
		}
		self := m.Spec.ID == j.id
		mine = mine || self && m.Spec.Votes > 0
		if self && phase != providers.PhaseStop {
			continue
		}
		votes += m.Spec.Votes
		if !self && !out[m.Spec.ID] && (m.Node == spec.NodeUp || m.Node == spec.NodePaused) {
			up += m.Spec.Votes
		}
	}
	if !mine || votes == 0 {
		return nil
	}
	if needed := quorum.Needed(world.Live.Cluster.Quorum.Model, votes); up < needed {
		return fmt.Errorf("%w: after %q only %d votes would be up, and %d are needed; other nodes failed since the plan was made: apply again once they are back", providers.ErrNoQuorum, phase, up, needed)
	}
	r.taken[j.u.Key.Addr] = taken{id: j.id}
	return nil
}
