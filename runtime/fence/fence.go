// Package fence turns nodes off, by the devices of the definition's fence
// blocks, and makes sure that they are.
//
// A Runner carries out a Job: the devices that cover one node, level by level.
// Of a level every device is told to turn the node off, then every one is asked,
// and only if each says "off" the job is done; else the next level follows. What
// an agent answers to "off" itself counts for nothing.
//
// Devices: any fence agent of ClusterLabs (agent.go), spoken to as Pacemaker
// does: key=value lines on its standard input, exit statuses back; and the
// built-in "local" (local.go), for nodes that are processes on this machine, and
// "libvirt" (libvirt.go), for nodes that are virtual machines.
//
// A job that is cancelled before its first device was told anything ends so;
// after that it goes on to its end, for a node that is half off helps nobody.
// Jobs for one node run one after the other. Secrets of a device never leave this
// package: they are taken out of what agents print.
package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Config of a Runner.
type Config struct {
	Log *slog.Logger // default: none
	// Path are the directories where agents are looked for by name; default
	// /usr/sbin and /sbin.
	Path []string
	// Dir is the own node's directory, NodeID and ClusterID are its: the built-in
	// agent finds other nodes beside it, and never ends this one.
	Dir       string
	NodeID    string
	ClusterID string
	// Again is the pause before a device that failed is tried once more, and
	// between two questions whether the node is off yet; default 1 s.
	Again time.Duration
}

// Job is one node to be turned off.
type Job struct {
	Node   string // id
	Name   string
	Levels [][]spec.Fence
}

// Use is what came of one device.
type Use struct {
	Fence string // id
	OK    bool   // it says that the node is off
	Err   string
}

// Result of a Job.
type Result struct {
	OK        bool   // verified off
	Cancelled bool   // nothing was done
	By        string // the devices that say so
	Err       string // why not, of all levels
	Uses      []Use
}

// Runner carries out jobs. It is safe for concurrent use.
type Runner struct {
	cfg   Config
	mu    sync.Mutex
	nodes map[string]*sync.Mutex // by node id
	meta  map[string]*metadata   // by agent's file
}

// New makes a Runner.
func New(cfg Config) *Runner {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Path) == 0 {
		cfg.Path = []string{"/usr/sbin", "/sbin"}
	}
	if cfg.Again == 0 {
		cfg.Again = time.Second
	}
	return &Runner{cfg: cfg, nodes: map[string]*sync.Mutex{}, meta: map[string]*metadata{}}
}

// device is one way to one node's power. Each call is bounded by its context.
type device interface {
	off(ctx context.Context) error
	on(ctx context.Context) error
	// isOff asks whether the node is off. An error: it can't be told.
	isOff(ctx context.Context) (bool, error)
}

func (r *Runner) device(f *spec.Fence, job *Job) (device, error) {
	if f.Agent == spec.FenceLocal {
		return r.local(job.Node)
	}
	if f.Agent == spec.FenceLibvirt {
		return newMachine(f, job.Name, r.cfg.Log), nil
	}
	return r.agent(f, job.Name)
}

// errOn is what a device says that was told to turn off and is on.
var errOn = errors.New("the device says that the node is still on")

// Run carries out a job. ctx cancels it before anything was done.
func (r *Runner) Run(ctx context.Context, job Job) Result {
	r.mu.Lock()
	lock := r.nodes[job.Node]
	if lock == nil {
		lock = new(sync.Mutex)
		r.nodes[job.Node] = lock
	}
	r.mu.Unlock()
	lock.Lock()
	defer lock.Unlock()
	res := Result{}
	if job.Node == r.cfg.NodeID {
		res.Err = "a node never fences itself"
		return res
	}
	var errs []string
	for _, level := range job.Levels {
		if !r.wait(ctx, level) {
			return Result{Cancelled: true}
		}
		ctx = context.WithoutCancel(ctx) // from its first device on
		uses, by, err := r.level(ctx, level, &job)
		res.Uses = append(res.Uses, uses...)
		if err == nil {
			res.OK, res.By, res.Err = true, by, ""
			return res
		}
		r.cfg.Log.Warn("a level of fences failed", "node", job.Name, "level", level[0].Level, "err", err)
		errs = append(errs, fmt.Sprintf("level %d: %v", level[0].Level, err))
	}
	res.Err = strings.Join(errs, "; ")
	if res.Err == "" {
		res.Err = "no fence covers it"
	}
	return res
}

// wait waits a level's delay; false: cancelled.
func (r *Runner) wait(ctx context.Context, level []spec.Fence) bool {
	var delay time.Duration
	for i := range level {
		delay = max(delay, level[i].Delay.D())
	}
	return sleep(ctx, delay)
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// level has every device of a level turn the node off, then asks every one.
func (r *Runner) level(ctx context.Context, level []spec.Fence, job *Job) (uses []Use, by string, err error) {
	devices := make([]device, len(level))
	uses = make([]Use, len(level))
	var names, errs []string
	failed := func(i int, why error) {
		text := newSecrets(&level[i]).hide(why.Error())
		uses[i].OK, uses[i].Err = false, text
		errs = append(errs, level[i].Name+": "+text)
	}
	for i := range level {
		f := &level[i]
		uses[i] = Use{Fence: f.ID, OK: true}
		names = append(names, f.Name)
		d, err := r.device(f, job)
		if err == nil {
			err = r.twice(ctx, f, d.off)
		}
		if err != nil {
			failed(i, err)
			continue
		}
		devices[i] = d
	}
	for i := range level { // asked last, when all have been turned off: one may feed what another cut
		if devices[i] == nil {
			continue
		}
		if err := r.verify(ctx, &level[i], devices[i]); err != nil {
			failed(i, err)
		}
	}
	if len(errs) > 0 {
		return uses, "", errors.New(strings.Join(errs, ", "))
	}
	for i := range level {
		if level[i].Action != spec.FenceReboot {
			continue
		}
		// Off is proven; whether it comes back is no matter of safety.
		if err := r.twice(ctx, &level[i], devices[i].on); err != nil {
			uses[i].Err = newSecrets(&level[i]).hide("it was turned off, and not on again: " + err.Error())
			r.cfg.Log.Error("a fenced node was not turned on again", "node", job.Name, "fence", level[i].Name, "err", uses[i].Err)
		}
	}
	return uses, strings.Join(names, ", "), nil
}

func timeout(f *spec.Fence) time.Duration {
	if f.Timeout > 0 {
		return f.Timeout.D()
	}
	return spec.DefaultFenceTimeout.D()
}

// twice calls a device, and once more if that fails.
func (r *Runner) twice(ctx context.Context, f *spec.Fence, call func(context.Context) error) error {
	once := func() error {
		ctx, cancel := context.WithTimeout(ctx, timeout(f))
		defer cancel()
		return call(ctx)
	}
	err := once()
	if err == nil {
		return nil
	}
	r.cfg.Log.Warn("a fence failed; once more", "fence", f.Name, "err", newSecrets(f).hide(err.Error()))
	if !sleep(ctx, r.cfg.Again) {
		return err
	}
	return once()
}

// verify asks a device until it says off, for at most its time-out.
func (r *Runner) verify(ctx context.Context, f *spec.Fence, d device) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(f))
	defer cancel()
	var last error
	for {
		off, err := d.isOff(ctx)
		if off && err == nil {
			return nil
		}
		if err == nil {
			err = errOn
		}
		if last == nil || ctx.Err() == nil { // what it said says more than that its time was over
			last = err
		}
		if !sleep(ctx, r.cfg.Again) {
			return last
		}
	}
}
