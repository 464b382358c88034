// Package resource holds the resource types, one file each: what it takes to
// bring one online, to take it offline so that nothing is left, and to tell
// whether it is well.
//
//	r, err := resource.New(env, host, spec)   // checks the attributes
//	err = r.Start(ctx, progress)              // until it is online
//	... r.Exited(), r.LooksAlive(ctx), r.IsAlive(ctx) ...
//	r.Stop(ctx, func(error) {})               // until nothing is left of it
//
// A Resource is one life of a resource: started once, stopped once. It owns no
// goroutine that outlives a call; the monitor's loop calls it. Who restarts
// what, and when, is decided in runtime/core. Processes are started by the
// monitor (Host), which sees to it that they die with it.
package resource

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Env is where a resource lives.
type Env struct {
	Cluster string // name
	Node    string // name
	Group   string // name
	Epoch   uint64 // of the ownership under which it starts
	Dir     string // the node's directory
	BinDir  string // first in PATH
	Socket  string // the local API
}

// Host runs programs for resources. The monitor is one.
type Host interface {
	// Guard starts p under a guardian, which kills it and all its descendants
	// when the monitor dies. The error says why it could not be started; then
	// nothing is left of it.
	Guard(ctx context.Context, p Program) (Guarded, error)
	// Run runs p, a check, to its end and returns nil for exit status 0. When
	// ctx ends, it is killed with its process group.
	Run(ctx context.Context, p Program) error
	// Undo keeps on disk that p has to be run to its end if this monitor dies,
	// before anything else is started on this node; done takes that back, on
	// disk as well.
	Undo(p Program) (done func() error, err error)
	// Tell puts a warning in the agent's log.
	Tell(text string)
	// Hold adds an IP address to the kernel, which takes it away when the
	// monitor dies, and tells the neighbours. After an error nothing is left.
	Hold(ctx context.Context, a Address) (HeldAddress, error)
}

// Address is an IP address to add.
type Address struct {
	Address   netip.Addr
	Bits      int           // of its subnet; 0: the interface's own
	Interface string        // "": the one with an address in the same subnet
	Probe     time.Duration // how long to listen for another owner; 0: not at all
}

// HeldAddress is an address that is there.
type HeldAddress interface {
	// Lost is closed when it is gone or can't be reached any more, though
	// nobody released it; Check then says why.
	Lost() <-chan struct{}
	// Check looks whether it is there and can be reached.
	Check() error
	// Release takes it away and returns once it is gone, as read back.
	Release()
}

// Program is a program to run.
type Program struct {
	Name    string   // for people: group/resource
	Path    string   // the file
	Args    []string // with the program's own name first
	Env     []string
	Dir     string
	User    *User         // nil: the monitor's
	Log     string        // file for stdout and stderr; "": not kept
	LogMax  int64         // bytes at which the log is rotated
	LogKeep int           // rotated logs that are kept
	Stays   bool          // what it leaves in the background when it ends well is kept, until Kill
	Within  time.Duration // how long it may take, where it is run by another monitor than it was kept by; 0: not said
}

// User is whom a program runs as.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// Guarded is a program that runs under a guardian.
type Guarded interface {
	// PID is the program's process id.
	PID() int
	// Exited is closed when the program's first process has ended; ExitError
	// then says how, in words, with its last line of output.
	Exited() <-chan struct{}
	ExitError() error
	// Well tells, once it has exited, whether that was with status 0.
	Well() bool
	// Gone is closed when neither it nor any descendant is left.
	Gone() <-chan struct{}
	// Stop sends a signal (a number) to its process group, once.
	Stop(signal int)
	// Kill kills all of it. Gone follows.
	Kill()
}

// kind is what a resource type implements.
type kind interface {
	// start returns once it runs. After an error, stop is called all the same.
	start(ctx context.Context) error
	// stop is graceful until ctx ends or the type's own time is up, and
	// returns only when nothing is left. failed is told of each try that failed.
	stop(ctx context.Context, failed func(error))
	// alive is the type's own check.
	alive() error
	// exited is closed when it ended by itself; nil: it can't.
	exited() <-chan struct{}
	// program is the environment of its check commands.
	program() (Program, error)
}

// Resource is one life of one resource.
type Resource struct {
	host Host
	kind kind
	spec spec.Resource
}

// Intervals and time-outs where a definition has none.
const (
	defaultLooksAlive = 5 * time.Second
	defaultIsAlive    = time.Minute
	defaultTimeout    = 10 * time.Second
	defaultPending    = 180 * time.Second
)

// New makes a resource by its type and checks its attributes. It starts
// nothing and looks at no file.
func New(env Env, host Host, r spec.Resource) (*Resource, error) {
	var k kind
	a := &attributes{typ: r.Type, values: r.Attributes}
	switch r.Type {
	case "ip_address":
		k = newIPAddress(env, host, a)
	case "generic_application":
		k = newGenericApplication(env, host, r.Name, a)
	case "script":
		k = newScript(env, host, r.Name, a)
	default:
		return nil, fmt.Errorf("resource %s: this version has no resource type %q", r.Name, r.Type)
	}
	a.checkNames()
	for _, p := range []struct {
		name string
		poll spec.Poll
	}{{"looks_alive", r.LooksAlive}, {"is_alive", r.IsAlive}} {
		if err := checkPoll(p.poll); err != nil {
			a.problem("%s: %w", p.name, err)
		}
	}
	if err := errors.Join(a.problems...); err != nil {
		return nil, fmt.Errorf("resource %s: %w", r.Name, err)
	}
	if r.LooksAlive.Interval <= 0 {
		r.LooksAlive.Interval = spec.Duration(defaultLooksAlive)
	}
	if r.IsAlive.Interval <= 0 {
		r.IsAlive.Interval = spec.Duration(defaultIsAlive)
	}
	for _, p := range []*spec.Poll{&r.LooksAlive, &r.IsAlive} {
		if p.Timeout <= 0 {
			p.Timeout = spec.Duration(defaultTimeout)
		}
	}
	if r.PendingTimeout <= 0 {
		r.PendingTimeout = spec.Duration(defaultPending)
	}
	return &Resource{host: host, kind: k, spec: r}, nil
}

// LooksAliveEvery is the interval of the cheap check.
func (r *Resource) LooksAliveEvery() time.Duration { return r.spec.LooksAlive.Interval.D() }

// IsAliveEvery is the interval of the thorough check.
func (r *Resource) IsAliveEvery() time.Duration { return r.spec.IsAlive.Interval.D() }

// StartTimeout is how long Start may take at most: pending_timeout until it runs,
// and again until its check passes.
func (r *Resource) StartTimeout() time.Duration { return 2 * r.spec.PendingTimeout.D() }

// CheckTimeout is how long a check may take at most.
func (r *Resource) CheckTimeout() time.Duration {
	return max(r.spec.LooksAlive.Timeout, r.spec.IsAlive.Timeout).D()
}

// lived is how long a process has to live before it counts as online where no
// check is stated: most that can't start (a wrong argument, a port in use) have
// ended by then.
const lived = 50 * time.Millisecond

// Start brings it online: it returns nil once it runs and, where the
// definition states a check, once that check has passed (is_alive's, else
// looks_alive's). It gives up when ctx ends, when it exits, or when there is no
// sign of progress for pending_timeout: that it runs is one, and is told by
// progress when it has to wait for its check. After an error Stop must be
// called all the same.
func (r *Resource) Start(ctx context.Context, progress func(string)) error {
	if err := r.started(ctx); err != nil {
		return err
	}
	poll := r.spec.IsAlive
	if !stated(poll) {
		poll = r.spec.LooksAlive
	}
	if !stated(poll) {
		return r.lives(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.spec.PendingTimeout.D(), errPending)
	defer cancel()
	return r.awaitCheck(ctx, poll, progress)
}

// lives returns once it has run for a moment, or has ended within it. An address
// that is there needs no such proof: what depends on it would only wait.
func (r *Resource) lives(ctx context.Context) error {
	if _, address := r.kind.(*ipAddress); address || r.kind.exited() == nil {
		return nil
	}
	timer := time.NewTimer(lived)
	defer timer.Stop()
	select {
	case <-r.kind.exited():
		return r.kind.alive()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// started returns once it runs.
func (r *Resource) started(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.spec.PendingTimeout.D(), errPending)
	defer cancel()
	err := r.kind.start(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errPending) {
		return fmt.Errorf("not started after %s (pending_timeout)", r.spec.PendingTimeout)
	}
	return err
}

var errPending = errors.New("pending_timeout has passed")

// awaitCheck repeats a check until it passes. A service that is quick is seen
// 20 ms after it is up, a slow one costs five checks a second; a check is
// given at least as much rest as it took.
func (r *Resource) awaitCheck(ctx context.Context, poll spec.Poll, progress func(string)) error {
	wait := 20 * time.Millisecond
	var last error
	for {
		began := time.Now()
		err := r.check(ctx, poll)
		switch {
		case err == nil:
			return nil
		case exitedNow(r.kind):
			return r.kind.alive()
		case ctx.Err() != nil:
			if last == nil {
				last = err
			}
			if errors.Is(context.Cause(ctx), errPending) {
				return fmt.Errorf("not online after %s (pending_timeout); the last check: %w", r.spec.PendingTimeout, last)
			}
			return context.Cause(ctx)
		}
		if last == nil {
			progress("it runs; waiting for its check: " + err.Error())
		}
		last = err
		timer := time.NewTimer(max(wait, time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-r.kind.exited():
		}
		timer.Stop()
		wait = min(wait*5/4, 200*time.Millisecond)
	}
}

func exitedNow(k kind) bool {
	select {
	case <-k.exited():
		return true
	default:
		return false
	}
}

// Stop takes it offline: gracefully until ctx ends or its own time-out has
// passed, then by killing. It returns only when nothing is left of it. failed is told
// why a try to stop it did not succeed, where there will be another.
func (r *Resource) Stop(ctx context.Context, failed func(error)) { r.kind.stop(ctx, failed) }

// Exited is closed when it ended by itself; nil for what can't. ExitError then
// says how.
func (r *Resource) Exited() <-chan struct{} { return r.kind.exited() }

// ExitError says how it ended, once Exited is closed.
func (r *Resource) ExitError() error { return r.kind.alive() }

// LooksAlive is the cheap check. An error is a doubt: ask IsAlive.
func (r *Resource) LooksAlive(ctx context.Context) error {
	if err := r.kind.alive(); err != nil || !stated(r.spec.LooksAlive) {
		return err
	}
	return r.check(ctx, r.spec.LooksAlive)
}

// IsAlive is the thorough check; an error means that it failed. Where only
// looks_alive states a check, that one is asked again.
func (r *Resource) IsAlive(ctx context.Context) error {
	err := r.kind.alive()
	switch {
	case err != nil:
		return err
	case stated(r.spec.IsAlive):
		return r.check(ctx, r.spec.IsAlive)
	case stated(r.spec.LooksAlive):
		return r.check(ctx, r.spec.LooksAlive)
	}
	return nil
}
