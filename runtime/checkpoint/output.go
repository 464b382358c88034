package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// handover is a directory for one file that the resource's user and this process
// share. It is this process's alone until give: what is done in it before can't be
// led elsewhere by a link.
type handover struct {
	path string
	dir  *os.File
}

const outputName = "output"

func newHandover() (*handover, error) {
	path, err := os.MkdirTemp("", "clusterplan-checkpoint-")
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		os.RemoveAll(path)
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return &handover{path, dir}, nil
}

func (h *handover) file() string { return filepath.Join(h.path, outputName) }

func (h *handover) give(user int) error {
	if user < 0 {
		return nil
	}
	if err := h.dir.Chown(user, -1); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

func (h *handover) close() {
	h.dir.Close()
	os.RemoveAll(h.path)
}

// lookOutput runs the command and keeps what it says.
func (k *Keeper) lookOutput(ctx context.Context) error {
	out, err := k.output(ctx)
	if err != nil {
		return err
	}
	defer out.Close()
	var f File
	if err := k.send(ctx, out, &f); err != nil {
		return err
	}
	return k.put(ctx, []File{f})
}

// output runs the command to its end and is what it wrote: a file without a name,
// to be read from its begin. The command writes to a pipe that this process reads,
// so that one that says too much is ended before it has filled a disk. The pipe's
// directory is this process's, and the pipe is open before anyone else can reach
// it: nothing that the resource's user does leads elsewhere.
func (k *Keeper) output(ctx context.Context) (_ *os.File, err error) {
	h, err := newHandover()
	if err != nil {
		return nil, err
	}
	defer h.close()
	if err := unix.Mkfifo(h.file(), 0o600); err != nil {
		return nil, fmt.Errorf("checkpoint: make a pipe: %w", err)
	}
	from, err := os.OpenFile(h.file(), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer from.Close()
	// As long as this end is open the pipe has no end: the command may not have
	// opened it yet, or open it again.
	hold, err := os.OpenFile(h.file(), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer hold.Close()
	if k.conf.User >= 0 {
		if err := errors.Join(os.Chown(h.file(), k.conf.User, -1), os.Chmod(h.path, 0o711)); err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
	}
	said, err := os.CreateTemp("", "clusterplan-checkpoint-")
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer func() {
		if err != nil {
			said.Close()
		}
	}()
	if err := os.Remove(said.Name()); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}

	run, end := context.WithCancelCause(ctx)
	defer end(nil)
	copied := make(chan struct{})
	var bad error // of the copy
	go func() {
		defer close(copied)
		n, err := io.Copy(said, io.LimitReader(from, maxBytes+1))
		switch {
		case n > maxBytes:
			bad = fmt.Errorf("it has written more than %d MiB, the most for one resource, and was ended", maxBytes>>20)
		case err != nil:
			bad = fmt.Errorf("take its output: %w", err)
		}
		if bad != nil {
			end(bad)
		}
	}()
	err = k.conf.Run(run, k.conf.Spec.Command, "", h.file())
	hold.Close()
	// All that it has written lies in the pipe. Who still holds it open outlived its
	// guardian and is not waited for.
	_ = from.SetReadDeadline(time.Now().Add(outputRest))
	<-copied
	if bad != nil && ctx.Err() == nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("the checkpoint's command: %w", err)
	}
	if _, err := said.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return said, nil
}

// outputRest bounds how long the rest in a pipe is read after the command's end.
const outputRest = 5 * time.Second

// bringBackOutput gives the restore command what was kept.
func (k *Keeper) bringBackOutput(ctx context.Context, m Manifest) error {
	if len(m.Files) != 1 || m.Files[0].Path != "" {
		return nil // files, of a definition that has changed since
	}
	h, err := newHandover()
	if err != nil {
		return err
	}
	defer h.close()
	in, err := os.OpenFile(h.file(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	err = fill(ctx, in, m.Files[0], k.conf.Store.Chunk)
	if err == nil && k.conf.User >= 0 {
		err = in.Chown(k.conf.User, -1)
	}
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := h.give(k.conf.User); err != nil {
		return err
	}
	if err := k.conf.Run(ctx, k.conf.Spec.Restore, h.file(), ""); err != nil {
		return fmt.Errorf("the checkpoint's restore command: %w", err)
	}
	return nil
}
