package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// instance is one life of one resource, from a Start until nothing is left of
// it. Its goroutine (run) reports to the loop, which owns all fields.
type instance struct {
	ref      ResourceRef
	spec     spec.Resource
	group    *group
	state    string
	reason   string
	failed   bool   // it failed before it was asked to stop, and stops by itself
	stuck    string // why its stop has failed last
	stopping bool   // it was asked to stop
	killing  bool
	stop     context.CancelCauseFunc // asks it to stop
	kill     context.CancelFunc      // ends its patience with the resource
	look     chan struct{}           // its separate monitor is to look at the lease, which is shorter; nil: it has none
}

// report is what an instance tells the loop.
type report struct {
	in     *instance
	state  string // spec.StateOnlinePending (a sign of progress), StateOnline, StateFailed, StateOfflinePending (its stop has failed, and is tried again); "" when gone
	reason string
	gone   bool   // nothing is left of it; last
	hung   string // a call of it that doesn't come back (deadlock.go); "": none
}

// errStopped is why a start ends that is no longer wanted.
var errStopped = errors.New("stopped")

// run lives one life. stop and kill are the contexts of in.stop and in.kill.
func (m *monitor) run(stop, kill context.Context, in *instance, env resource.Env) {
	say := func(r report) {
		r.in = in
		m.reports <- r
	}
	res, err := resource.New(env, m.host, in.spec)
	if err == nil {
		// The epoch is on disk before anything runs under it.
		err = m.record.see(in.ref.Group, in.ref.Epoch)
	}
	keeper := (*keeper)(nil)
	if err == nil && stop.Err() == nil {
		awaitSocket(stop, env.Socket)
		keeper, err = m.restore(stop, in, env, res)
	}
	if err == nil && stop.Err() == nil {
		returned := m.call(in, "start", res.StartTimeout())
		err = res.Start(stop, func(what string) {
			say(report{state: spec.StateOnlinePending, reason: what})
		})
		returned()
	}
	if err == nil && stop.Err() == nil {
		say(report{state: spec.StateOnline})
		looked := keeper.begin(stop, res.LooksAliveEvery())
		err = watch(stop, res, m.callsOf(in, res))
		looked()
	}
	if err != nil && stop.Err() == nil {
		say(report{state: spec.StateFailed, reason: err.Error()})
	}
	if res != nil {
		// Also after a failure: what is left of it must not be in the way of
		// the next start, here or elsewhere.
		res.Stop(kill, func(err error) { say(report{state: spec.StateOfflinePending, reason: err.Error()}) })
		keeper.last(kill)
	}
	say(report{gone: true})
}

// watch looks after a resource that is online until it fails, or until stop
// ends (then it returns nil or any error). One timer serves both checks.
func watch(stop context.Context, res *resource.Resource, call func(what string) (returned func())) error {
	now := time.Now()
	looks, is := now.Add(res.LooksAliveEvery()), now.Add(res.IsAliveEvery())
	timer := time.NewTimer(time.Until(earlier(looks, is)))
	defer timer.Stop()
	for {
		select {
		case <-stop.Done():
			return nil
		case <-res.Exited():
			return res.ExitError()
		case <-timer.C:
		}
		now := time.Now()
		doubt := error(nil)
		if !now.Before(looks) {
			looks = now.Add(res.LooksAliveEvery())
			if now.Before(is) { // else the thorough one follows anyway
				doubt = during(stop, res, res.LooksAlive, call("looks_alive"))
			}
		}
		if doubt != nil || !now.Before(is) {
			is = now.Add(res.IsAliveEvery())
			if err := during(stop, res, res.IsAlive, call("is_alive")); err != nil {
				return err
			}
		}
		timer.Reset(max(0, time.Until(earlier(looks, is))))
	}
}

// during runs a check and returns at once when the resource ends meanwhile, or
// is asked to stop; the check is then given up.
func during(stop context.Context, res *resource.Resource, check func(context.Context) error, returned func()) error {
	ctx, cancel := context.WithCancel(stop)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		defer returned()
		result <- check(ctx)
	}()
	select {
	case err := <-result:
		if err != nil && stop.Err() == nil {
			select {
			case <-res.Exited():
				return res.ExitError()
			default:
			}
			return fmt.Errorf("check failed: %w", err)
		}
		return err
	case <-res.Exited():
		return res.ExitError()
	case <-stop.Done():
		return nil
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
