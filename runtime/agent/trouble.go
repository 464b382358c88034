package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb/store"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// What becomes of a node whose database can't be written (a full or failing disk):
//
//   - One of several stops its groups in order, so that others have them without
//     a wait, hands leadership over, and ends its part (errStore). The process
//     stays, tries the disk, and begins anew, as after a restart, once it takes
//     writes: nobody has to start the agent by hand.
//   - The only one goes on: its groups need no write to run, and nobody else could
//     run them. The same write is tried until it is done; until then commands get
//     no answer but that.
//
// A write that failed has left nothing behind (the store's promise), so that
// it can be tried again as it is.

// errStore ends a node's part because its database can't be written.
var errStore = errors.New("the node's database can't be written")

const (
	retryFirst = 500 * time.Millisecond // after a failed write
	retryMost  = 10 * time.Second
)

// retries calls try until it succeeds or ctx ends; it tells the first error
// and the success after it.
func (n *Node) retries(ctx context.Context, what string, try func() error) bool {
	err := try()
	for wait := retryFirst; err != nil; wait = min(2*wait, retryMost) {
		if wait == retryFirst {
			n.log.Error(what+": tried again until it works", "err", err)
		}
		text := err.Error()
		n.trouble.Store(&text)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
		if err = try(); err == nil {
			n.trouble.Store(nil)
			n.log.Info("the database can be written again")
		}
	}
	return true
}

// write makes the member's writes durable, one after the other.
func (n *Node) write(ctx context.Context) error {
	for {
		select {
		case p := <-n.writes:
			write := func() error { return n.store.Write(p.What) }
			if p.What.Grows {
				write = func() error { return n.writeGrown(p.What) }
			}
			if n.alone.Load() {
				if !n.retries(ctx, "the database can't be written; groups go on, nothing can be changed", write) {
					return nil
				}
			} else if err := write(); err != nil {
				n.give(job{fn: func() { n.broken = err }})
				n.input(member.PersistFailed{N: p.N, Err: err.Error()})
				continue
			}
			n.input(member.Persisted{N: p.N})
		case <-ctx.Done():
			return nil
		}
	}
}

// awaitDisk waits until a data directory takes writes; false: ctx ended first.
func awaitDisk(ctx context.Context, cfg Config, dir string, cause error) bool {
	cfg.Log.Error("this node waits until its database can be written, then it takes part again", "err", cause)
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
		_ = cfg.systemd.tell("WATCHDOG=1") // what it waits for is no hang of its own
		err := probeDisk(dir)
		if err == nil {
			cfg.Log.Info("the database can be written again")
			return true
		}
		cfg.Log.Debug("the database still can't be written", "err", err)
	}
}

func probeDisk(dir string) error {
	st, err := store.Open(filepath.Join(dir, dataDir))
	if err != nil {
		return err
	}
	if err := errors.Join(st.Probe(), st.Close()); err != nil {
		return fmt.Errorf("try the disk: %w", err)
	}
	return nil
}
