package command

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
)

// pipe is stdout or stderr of a command that comes to its end although nobody
// reads any more what it says: `apply | head` is no reason to stop an apply in
// its middle, nor `plan --out FILE | head` one to save no plan.
type pipe struct {
	io.Writer
	closed atomic.Bool
}

func (p *pipe) Write(data []byte) (int, error) {
	if p.closed.Load() {
		return len(data), nil
	}
	n, err := p.Writer.Write(data)
	if errors.Is(err, syscall.EPIPE) {
		p.closed.Store(true)
		return len(data), nil
	}
	return n, err
}

// outlive has a command go on where what it prints goes to nobody any more. What
// only prints, for as long as somebody reads, ends with its reader as ever.
func (a *app) outlive(cmd *cobra.Command) {
	for _, flag := range []string{"follow", "watch"} {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Value.String() == "true" {
			return
		}
	}
	top := cmd
	for top.GroupID == "" && top.HasParent() {
		top = top.Parent()
	}
	if top.GroupID == groupOther || top.GroupID == "" { // agents, and what is no command of the definition's
		return
	}
	// Caught, not ignored: programs that are started would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	a.out, a.err = &pipe{Writer: a.out}, &pipe{Writer: a.err}
}

// unread tells whether nobody reads stdout any more.
func (a *app) unread() bool {
	p, ok := a.out.(*pipe)
	return ok && p.closed.Load()
}
