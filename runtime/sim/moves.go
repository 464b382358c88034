package sim

import (
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// moveLimit bounds a planned move in a cluster that is well otherwise, order to
// start: its commits and the stops of two resources take a small part of it.
const moveLimit = time.Second

// startMoves has an operator move one group after another, all being well. Each
// time the group has to start where it was told to, and no other one may stop.
func (w *world) startMoves() {
	until := w.now + int64(w.cfg.For-3*time.Second)
	var next func(waited time.Duration)
	next = func(waited time.Duration) {
		switch {
		case w.now > until, w.cfg.Most > 0 && w.rep.Faults >= w.cfg.Most:
			return
		case !w.well() && waited > 15*time.Second:
			w.violate("", nil, "the cluster is not whole %v after a move", waited)
			return
		case !w.well():
			w.after(100*time.Millisecond, func() { next(waited + 100*time.Millisecond) })
			return
		}
		i := w.rng.IntN(w.cfg.Groups)
		from := w.check.last[groupID(i)]
		to, asked := w.hosts[w.rng.IntN(len(w.hosts))], w.hosts[w.rng.IntN(len(w.hosts))]
		if to == from || to.witness() || asked.agent == nil {
			w.after(time.Millisecond, func() { next(0) })
			return
		}
		w.rep.Faults++
		w.rep.Kinds["move"]++
		w.move(groupID(i), from, to, asked)
		// Somewhere between two frames, so that no beat is always near.
		w.after(w.between(moveLimit+500*time.Millisecond, moveLimit+time.Second), func() { w.calm = nil; next(0) })
	}
	w.after(time.Second, func() { next(0) })
}

// move orders one move, and judges it. Its time is what a client misses: from the
// end of the group's last process and address on the one node to the start of the
// first on the other.
func (w *world) move(id string, from, to, asked *host) {
	w.calm = map[string]bool{}
	for i := range w.cfg.Groups {
		if other := groupID(i); other != id {
			w.calm[other] = true
		}
	}
	w.tell("operator: move %s from %s to %s (asked of %s)", id, from.name, to.name, asked.name)
	w.ops.submit(asked, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: id, To: to.nodeID}}, nil)
	end, down := w.now+int64(moveLimit), int64(0)
	var watch func()
	watch = func() {
		switch {
		case to.kernel.runs(id):
			w.rep.Times = append(w.rep.Times, time.Duration(w.now-down))
			return
		case w.now >= end:
			w.violate(id, []*host{from, to}, "%s does not run on %s %v after the order to move there", id, to.name, moveLimit)
			return
		case down == 0 && !from.kernel.runs(id):
			down = w.now
		}
		w.after(100*time.Microsecond, watch)
	}
	watch()
}

// Moves has an operator move groups, all else being well, and reports how long
// each was away, in true time, beside its own stop and start.
func Moves(cfg Config, runs int) Report {
	cfg.Crashes, cfg.Moves, cfg.Most = true, true, runs
	cfg.For = time.Duration(runs)*3*time.Second + 10*time.Second
	return Run(cfg)
}
