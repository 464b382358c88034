package resource

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// script is whatever two commands turn on and off. What start starts itself is
// kept under its guardian, and dies with the monitor; what it changes elsewhere
// is undone by stop alone: by this monitor, or by the next one, which finds the
// command in the record (Host.Undo). So it is online once start has ended well,
// and is not offline before stop has.
type script struct {
	env  Env
	host Host
	name string

	startCommand, stopCommand []string
	environment               map[string]string
	directory                 string
	stopTimeout               time.Duration

	begun   bool
	undone  func() error // nil: there is nothing to undo
	process Guarded      // what start has started; nil: never
}

func newScript(env Env, host Host, name string, a *attributes) *script {
	k := &script{
		env: env, host: host, name: name,
		startCommand: a.texts("start"), stopCommand: a.texts("stop"),
		environment: a.textMap("environment"),
		directory:   a.text("directory"),
		stopTimeout: a.duration("stop_timeout"),
	}
	for _, c := range []struct {
		name    string
		command []string
		may     bool // be left out
	}{{"start", k.startCommand, false}, {"stop", k.stopCommand, true}} {
		if len(a.problems) == 0 && !c.may && len(c.command) == 0 || len(c.command) > 0 && c.command[0] == "" {
			a.problem("%s is empty; write it as [\"program\", \"argument\"]", c.name)
		}
		if strings.ContainsRune(strings.Join(c.command, ""), 0) {
			a.problem("%s: an argument holds a zero byte", c.name)
		}
	}
	checkEnvironment(k.environment, a)
	if k.stopTimeout <= 0 {
		a.problem("stop_timeout = %s: a stop needs time, as 10s", k.stopTimeout)
	}
	if k.directory != "" && !filepath.IsAbs(k.directory) {
		k.directory = filepath.Join(env.Dir, k.directory)
	}
	return k
}

func (k *script) program() (Program, error) {
	p := Program{
		Name: k.env.Group + "/" + k.name,
		Dir:  k.directory,
		Env:  k.env.environ(k.name, k.environment),
	}
	if p.Dir == "" {
		p.Dir = k.env.Dir
	}
	return p, nil
}

// command is the program for one of its commands. It is looked for when it is
// to run: start may well install stop.
func (k *script) command(args []string, log string) (Program, error) {
	p, err := k.program()
	if err != nil {
		return p, err
	}
	p.Args = args
	p.Log = LogFile(k.env.Dir, k.env.Group, k.name+log)
	p.LogMax, p.LogKeep = 10<<20, 3
	p.Path, err = lookPath(args[0], p.Env, p.Dir)
	return p, err
}

func (k *script) start(ctx context.Context) error {
	p, err := k.command(k.startCommand, "")
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if len(k.stopCommand) > 0 {
		undo, err := k.command(k.stopCommand, "-stop")
		if err != nil {
			return fmt.Errorf("stop: %w", err) // better now than when it is needed
		}
		undo.Within = k.stopTimeout
		if k.undone, err = k.host.Undo(undo); err != nil {
			return err
		}
	}
	k.begun = true
	p.Stays = true
	if k.process, err = k.host.Guard(ctx, p); err != nil {
		k.process = nil
		return fmt.Errorf("start %s: %w", p.Path, plain(err))
	}
	select {
	case <-k.process.Exited():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !k.process.Well() {
		return fmt.Errorf("start: %w", k.process.ExitError())
	}
	return nil
}

// A stop that fails is run again, ever more seldom.
const (
	stopAgainFirst = 100 * time.Millisecond
	stopAgainMost  = 10 * time.Second
)

// StopUntilWell runs a script's stop until it has ended well. failed, and the
// agent's log, are told why each other try did not.
func StopUntilWell(host Host, name string, stop func() error, failed func(error)) {
	for wait := stopAgainFirst; ; wait = min(2*wait, stopAgainMost) {
		err := stop()
		if err == nil {
			return
		}
		err = fmt.Errorf("failed and is run again: %w", plain(err))
		host.Tell(fmt.Sprintf("the stop command of %s %v", name, err))
		failed(fmt.Errorf("its stop command %w", err))
		time.Sleep(wait)
	}
}

// stop runs the stop command until it has ended well, and kills what start has
// left. That the time is up (ctx) only hastens it: an array that is still
// attached is not offline.
func (k *script) stop(ctx context.Context, failed func(error)) {
	if !k.begun {
		return
	}
	k.endStart()
	if k.undone != nil {
		StopUntilWell(k.host, k.env.Group+"/"+k.name, func() error {
			p, err := k.command(k.stopCommand, "-stop")
			if err != nil {
				return err
			}
			run, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), k.stopTimeout, fmt.Errorf("not ended after %s (stop_timeout)", k.stopTimeout))
			defer cancel()
			if err := k.host.Run(run, p); err != nil {
				if run.Err() != nil {
					err = context.Cause(run)
				}
				return err
			}
			return k.undone()
		}, failed)
	}
	if k.process != nil {
		k.process.Kill()
		<-k.process.Gone()
	}
}

// endStart ends a start command that still runs: stop must not run beside it.
func (k *script) endStart() {
	if k.process == nil {
		return
	}
	select {
	case <-k.process.Exited():
	default:
		k.process.Kill()
		<-k.process.Gone()
	}
}

// alive: what matters is what start has changed, of which only a stated check
// knows.
func (k *script) alive() error {
	if k.process == nil {
		return errors.New("not started")
	}
	return nil
}

func (k *script) exited() <-chan struct{} { return nil }
