package lang

import (
	"fmt"
	"runtime/debug"

	"github.com/hashicorp/hcl/v2"
)

// An expression can be written that takes hours, and nothing looks up from one
// that is being worked out. Options.Stop ends the wait for it: what was begun is
// left to itself, and to the end of the program, which is near.

// interrupted is what such an end is told as.
func interrupted() hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Interrupted", Detail: "The definition was not worked out to its end. Nothing follows from what there is of it.", Extra: interruption{}}}
}

type interruption struct{}

// Interrupted tells whether diagnostics are there because Options.Stop was closed.
func Interrupted(diags hcl.Diagnostics) bool {
	for _, d := range diags {
		if _, ok := d.Extra.(interruption); ok {
			return true
		}
	}
	return false
}

// until waits for f, or for stop. False: f may still go on.
func until(stop <-chan struct{}, f func()) bool {
	if stop == nil {
		f()
		return true
	}
	done := make(chan any, 1)
	go func() {
		var failure any = "the evaluation left its goroutine"
		defer func() {
			if p := recover(); p != nil {
				failure = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			}
			done <- failure
		}()
		f()
		failure = nil
	}()
	select {
	case failure := <-done:
		if failure != nil {
			panic(failure) // where the caller sees it
		}
		return true
	case <-stop:
		return false
	}
}
