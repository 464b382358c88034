// Package lsp is the language server: it speaks the Language Server Protocol
// 3.17 to an editor over a pair of streams, and answers from package lang, whose
// schemas, parser, checks and formatter are the only ones.
//
// An editor's unsaved buffers lie over the files on disk (overlay.go). Each
// change makes the directory dirty, and one loop works out its diagnostics
// (analysis.go): of changes that come while it works only the newest counts,
// and what is stale is never published. Only the file that changed is parsed
// again, block by block, so that one that is being written hides no other. Everything else is answered at once from an outline of the text
// (outline.go), which is made of any text, however incomplete. Rename alone
// asks for text without syntax errors, and refuses what it can't do whole.
//
// It reads files below the workspace and writes none: edits go to the editor.
//
// Start reading at Serve, then server.go.
package lsp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"

	"github.com/creachadair/jrpc2"
	"golang.org/x/sync/errgroup"

	"github.com/clusterplan/clusterplan/lang"
)

// Config is what a server is made of.
type Config struct {
	// Language says what may stand in a definition: its Providers,
	// ResourceTypes, Version and Env count.
	Language lang.Options
	// Module finds the directory of a module that the directory from calls, both
	// from root's, and the one that no link in it may lead out of ("": any may).
	// nil: modules are in directories only.
	Module func(root fs.FS, source, from string) (dir, home string, err error)
	Log    *slog.Logger // nil: nothing is logged
}

// ErrNoShutdown says that the editor went away without a shutdown request.
var ErrNoShutdown = errors.New("the editor went away without asking for a shutdown")

// Serve speaks to one editor until it says exit, in ends, or ctx does. out is
// closed when it returns.
func Serve(ctx context.Context, c Config, in io.Reader, out io.WriteCloser) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newServer(c)
	rpc := jrpc2.NewServer(s, &jrpc2.ServerOptions{
		AllowPush: true, DisableBuiltin: true, Concurrency: 4,
		NewContext: func() context.Context { return ctx },
	})
	s.push = rpc.Notify
	s.ask = func(ctx context.Context, method string, params any) error {
		_, err := rpc.Callback(ctx, method, params)
		return err
	}
	s.stop = rpc.Stop
	var group errgroup.Group
	s.spawn = func(f func()) { group.Go(func() error { f(); return nil }) }
	frames := newFraming(in, out)
	go frames.pump()
	rpc.Start(frames)
	stopped := make(chan struct{})
	group.Go(func() error { return s.analyse(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			rpc.Stop()
		case <-stopped:
		}
		return nil
	})
	status := rpc.WaitStatus()
	close(stopped)
	cancel()
	_ = group.Wait()
	if err := status.Err; err != nil && !status.Stopped && !errors.Is(err, io.EOF) {
		return err
	}
	if !s.wasShutDown() {
		return ErrNoShutdown
	}
	return nil
}
