package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
)

type status byte

const (
	waiting status = iota
	running
	done
	failed
	skipped
)

// vertex is a unit on its way.
type vertex struct {
	unit    *planner.Unit
	status  status
	open    int // dependencies that are not settled, but for those in Of
	anyDone int // of Of: done
	anyOpen int // of Of: not settled
	because string
	ends    bool // the rolling, for its node has failed though it was there
}

type outcome struct {
	v      *vertex
	phase  string
	err    error
	waited bool // it gave its slot back before
}

// walk starts every unit whose time has come, until none is left. One
// goroutine decides; the units' own only work.
func (r *runner) walk(ctx context.Context, res *Result) {
	vertices := make(map[planner.Key]*vertex, len(r.work.Units))
	for _, u := range r.work.Units {
		vertices[u.Key] = &vertex{unit: u}
	}
	for _, u := range r.work.Units {
		v := vertices[u.Key]
		for dep := range r.work.Graph.Dependencies(u.Key) {
			if inOf(u, dep) {
				v.anyOpen++
			} else {
				v.open++
			}
		}
	}
	results, waits := make(chan outcome), make(chan struct{})
	// A unit whose work is done, and that only waits for its conditions to come
	// true, holds no slot.
	free := r.cfg.Parallelism
	active, working, stopped := 0, 0, false
	left := len(vertices) // that wait for others
	become := func(v *vertex, is status) {
		if v.status == waiting {
			left--
		}
		v.status = is
	}
	var ready []*vertex
	// settled tells the dependents of v. It works off a list of its own, for
	// a chain of skipped units can be long.
	settle := func(v *vertex) {
		list := []*vertex{v}
		for len(list) > 0 {
			v := list[0]
			list = list[1:]
			for dep, kind := range r.work.Graph.Dependents(v.unit.Key) {
				d := vertices[dep]
				if d.status != waiting {
					continue
				}
				if inOf(d.unit, v.unit.Key) {
					d.anyOpen--
					if v.status == done {
						d.anyDone++
					}
				} else {
					d.open--
					hard := kind == graph.Hard || v.ends && d.unit.Key.Stage == planner.StageRoll
					if hard && v.status != done && d.because == "" {
						d.because = v.unit.Key.String()
						if v.because != "" {
							d.because = v.because
						}
					}
				}
				switch {
				case d.because != "" && d.open == 0:
					become(d, skipped)
					if d.unit.Action != "" {
						res.Skipped = append(res.Skipped, Skip{Addr: d.unit.Key.Addr, Because: d.because})
						r.emit(Event{Type: EventSkipped, Addr: d.unit.Key.Addr, Action: d.unit.Action, Text: d.because + " failed"})
					}
					list = append(list, d)
				case d.open == 0 && d.anyDone+d.anyOpen < d.unit.Any:
					become(d, failed)
					d.because = d.unit.Key.String()
					err := tooFew(d)
					if d.unit.Action != "" {
						r.emit(Event{Type: EventErrored, Addr: d.unit.Key.Addr, Action: d.unit.Action, Err: err})
					}
					res.Failed = append(res.Failed, Failure{Addr: d.unit.Key.Addr, Action: d.unit.Action, Err: err})
					list = append(list, d)
				case d.open == 0 && d.anyDone >= d.unit.Any && d.because == "":
					become(d, running) // it is in the list of the ready, once
					ready = append(ready, d)
				}
			}
		}
	}
	for _, u := range r.work.Units {
		if v := vertices[u.Key]; v.status == waiting && v.open == 0 && v.anyDone >= u.Any && v.because == "" {
			become(v, running)
			ready = append(ready, v)
		} else if v.open == 0 && v.anyOpen < u.Any {
			v.because = v.unit.Key.String()
			become(v, failed)
			res.Failed = append(res.Failed, Failure{Addr: u.Key.Addr, Action: u.Action, Err: tooFew(v)})
			settle(v)
		}
	}
	stop, loose := r.cfg.Stop, false
	for active > 0 || len(ready) > 0 {
		select {
		case <-stop:
			stopped, stop = true, nil
		default:
		}
		stopped = stopped || ctx.Err() != nil || r.broken()
		for !stopped && len(ready) > 0 && free > 0 {
			v := ready[0]
			ready = ready[1:]
			if v.unit.Key.Stage == planner.StageMark {
				v.status = done
				settle(v)
				continue
			}
			active, free, working = active+1, free-1, working+1
			go func() {
				out := outcome{v: v}
				out.phase, out.err = r.run(ctx, v.unit, func() {
					if !out.waited {
						out.waited = true
						waits <- struct{}{}
					}
				})
				results <- out
			}()
		}
		if r.cfg.Ahead && active > 0 && working == 0 { // they wait for the journal, or for conditions
			if !loose && (stopped || left+len(ready) == 0) {
				loose = true
				close(r.loose)
			} else if !loose {
				r.writeSoon()
			}
		}
		if active == 0 {
			if stopped {
				break
			}
			continue
		}
		select {
		case <-stop:
			stopped, stop = true, nil
		case <-waits:
			free, working = free+1, working-1
		case out := <-results:
			if active--; !out.waited {
				free, working = free+1, working-1
			}
			if errors.Is(out.err, errStopped) || out.err != nil && ctx.Err() != nil && errors.Is(out.err, ctx.Err()) {
				// It did not fail, it was cut off: nothing follows from it.
				out.v.status, stopped = failed, true
				if out.v.unit.Action == "" {
					continue // a wait: nothing of it is to be looked at
				}
				res.Cancelled = append(res.Cancelled, Failure{Addr: out.v.unit.Key.Addr, Action: out.v.unit.Action, Phase: out.phase, Err: out.err})
				continue
			}
			if out.err != nil {
				out.v.status, out.v.ends = failed, r.endsRolling(out.v.unit, out.err)
				res.Failed = append(res.Failed, Failure{Addr: out.v.unit.Key.Addr, Action: out.v.unit.Action, Phase: out.phase, Err: out.err})
			} else {
				out.v.status = done
			}
			settle(out.v)
		}
	}
	if !stopped {
		return
	}
	res.Interrupted = !r.broken()
	seen := map[addr.Address]bool{}
	for _, u := range r.work.Units {
		if v := vertices[u.Key]; (v.status == waiting || contains(ready, v)) && u.Action != "" && !seen[u.Key.Addr] {
			seen[u.Key.Addr] = true
			res.NotStarted = append(res.NotStarted, u.Key.Addr)
		}
	}
}

// endsRolling tells whether a node that the plan could not reach, and that others were
// to be rolled after whatever becomes of it, keeps them from that all the same: it was
// back, and something else failed, or it has not come back from what was done to it.
func (r *runner) endsRolling(u *planner.Unit, err error) bool {
	if !u.Silent || u.Action != "update" || u.Key.Stage != planner.StageRoll {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !errors.Is(err, providers.ErrUnreachable) || slices.Contains(r.done[u.Key.Addr], providers.PhaseStop)
}

func contains(list []*vertex, v *vertex) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

func inOf(u *planner.Unit, k planner.Key) bool {
	for _, o := range u.Of {
		if o == k {
			return true
		}
	}
	return false
}

func tooFew(v *vertex) error {
	if v.unit.Key.Stage == planner.StageGate {
		return fmt.Errorf("only %d of %d voting nodes could join, and a majority takes %d of them; mend the nodes that failed and apply again", v.anyDone+v.anyOpen, len(v.unit.Of), v.unit.Any)
	}
	return fmt.Errorf("no node's agent was started; mend what is said of the nodes and apply again")
}

func (r *runner) broken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fatal != nil
}

// run does a unit and tells its progress. waits is called once all that is left
// of it is to wait.
func (r *runner) run(ctx context.Context, u *planner.Unit, waits func()) (string, error) {
	if u.Key.Stage == planner.StageGate {
		return "", r.awaitQuorum(ctx)
	}
	r.mu.Lock()
	start, begun := r.started[u.Key.Addr]
	if !begun {
		start = time.Now()
		r.started[u.Key.Addr] = start
	}
	r.mu.Unlock()
	if !begun { // an object is told of once, in however many units it is done
		r.emit(Event{Type: EventStart, Addr: u.Key.Addr, Action: r.action(u), ID: u.ID})
	}
	phase, err := r.unit(ctx, u, waits)
	r.ended(u, err)
	if err == nil && r.cfg.Ahead {
		waits()
		err = r.durable(true)
	}
	e := Event{Type: EventComplete, Addr: u.Key.Addr, Action: r.action(u), Phase: phase, ID: r.idOf(u), Elapsed: time.Since(start), Err: err}
	switch {
	case err != nil:
		e.Type = EventErrored
	case !u.Last:
		e.Type, e.Text = EventProgress, "agent runs"
		if u.Key.Stage == planner.StageOut {
			e.Text = "gone, or out for a while"
		}
	}
	r.emit(e)
	return phase, err
}
