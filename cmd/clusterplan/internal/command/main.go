// Package command is the command line: a file a command, each of which reads
// its arguments, has package run do the work, and has package view show it.
//
// Start reading at Main, then root.go.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
)

// Version of this program. It stands in states and on nodes.
const Version = "0.1.0"

// app is one run of the program.
type app struct {
	in       io.Reader
	out, err io.Writer
	style    view.Style // of out
	errStyle view.Style // of err
	noColor  bool
	chdir    string
	input    bool // may ask
	screen   bool // out is a terminal

	// stop is closed at the first interrupt: finish what is under way.
	stop chan struct{}
}

// Main runs the command line and returns the exit code.
func Main(args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw, stop: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer a.signals(cancel)()
	root := a.root()
	root.SetArgs(twoDashes(root, args))
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	a.style, a.errStyle = view.StyleOf(out, a.noColor), view.StyleOf(errw, a.noColor)
	// That somebody who pressed Ctrl-C has done so is no news to them.
	if err != nil && err != run.ErrInterrupted && !cutOff(err) && err.Error() != "" {
		a.errStyle.Error(errw, err)
	}
	return exitCode(err, a.interrupted())
}

// cutOff tells whether err says that a definition was not worked out to its end,
// since the user has ended it.
func cutOff(err error) bool {
	var diags *view.DiagnosticsError
	return errors.As(err, &diags) && lang.Interrupted(diags.Diags)
}

// signals: the first SIGINT, SIGTERM or SIGHUP (a terminal that goes away) closes
// stop, the second cancels. What has nothing to finish cancels at the first (soft).
func (a *app) signals(cancel func()) (done func()) {
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(ch, syscall.SIGHUP)
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-quit:
				return
			case <-ch:
			}
			if n == 0 {
				close(a.stop)
			} else {
				cancel()
			}
		}
	})
	return func() {
		signal.Stop(ch)
		close(quit)
		wg.Wait()
	}
}

func (a *app) interrupted() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

// abortable is for commands that have nothing to finish: the first interrupt
// ends them.
func (a *app) abortable(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-a.stop:
			cancel(run.ErrInterrupted)
		case <-quit:
		}
	})
	return ctx, func() { close(quit); wg.Wait(); cancel(nil) }
}

// Exit codes. Where several hold, the first in this order wins.
const (
	exitError       = 1
	exitInterrupted = 130
	exitLocked      = 4
	exitStale       = 5
	exitQuorum      = 6
	exitGuarantee   = 3
	exitChanges     = 2
	exitDone        = 0
)

// status is an exit code that is no error: nothing is printed for it.
type status int

func (s status) Error() string { return "" }

// passed is the exit code of a command that was run for the user.
type passed int

func (p passed) Error() string { return "" }

// exitCode finds the code of err, which may be several errors joined.
func exitCode(err error, interrupted bool) int {
	if err == nil {
		return exitDone
	}
	if code, ok := err.(passed); ok {
		return int(code)
	}
	codes := map[int]bool{}
	collect(err, codes, interrupted)
	for _, code := range []int{exitError, exitInterrupted, exitLocked, exitStale, exitQuorum, exitGuarantee, exitChanges} {
		if codes[code] {
			return code
		}
	}
	return exitDone
}

// collect finds the codes in a tree of errors: each branch has one. What was
// cancelled was so because of the interrupt, where there was one.
func collect(err error, codes map[int]bool, interrupted bool) {
	if diags, ok := err.(*view.DiagnosticsError); ok && cutOff(diags) {
		codes[exitInterrupted] = true
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		// What was cut off is one error, whatever else it wraps; joined ones are several.
		joined := reflect.TypeOf(err) == reflect.TypeOf(errors.Join(err))
		if interrupted && !joined && (errors.Is(err, context.Canceled) || errors.Is(err, run.ErrInterrupted)) {
			codes[exitInterrupted] = true
			return
		}
		for _, one := range many.Unwrap() {
			collect(one, codes, interrupted)
		}
		return
	}
	for _, c := range []struct {
		target error
		code   int
	}{{run.ErrInterrupted, exitInterrupted}, {run.ErrLocked, exitLocked}, {run.ErrChanging, exitLocked}, {run.ErrStale, exitStale}, {run.ErrQuorum, exitQuorum}, {run.ErrGuarantee, exitGuarantee}} {
		is, ok := err.(interface{ Is(error) bool })
		if err == c.target || ok && is.Is(c.target) {
			codes[c.code] = true
			return
		}
	}
	if s, ok := err.(status); ok {
		codes[int(s)] = true
		return
	}
	if inner := errors.Unwrap(err); inner != nil {
		collect(inner, codes, interrupted)
		return
	}
	if interrupted && err == context.Canceled {
		codes[exitInterrupted] = true
		return
	}
	codes[exitError] = true
}

// build says which build this is, for `version`.
func build() (revision string, modified bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", false
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	return revision, modified
}

func hint(err error, format string, args ...any) error {
	return &view.Hint{Err: err, Hint: fmt.Sprintf(format, args...)}
}
