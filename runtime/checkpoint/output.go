package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

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
	h, err := newHandover()
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.give(k.conf.User); err != nil {
		return err
	}
	if err := k.conf.Run(ctx, k.conf.Spec.Command, "", h.file()); err != nil {
		return fmt.Errorf("the checkpoint's command: %w", err)
	}
	// The directory is the user's: what lies there now may be a link to a file
	// that only this process may read.
	out, err := openOutput(h.dir, k.conf.User)
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

func openOutput(dir *os.File, user int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), outputName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoint command's output: %w", err)
	}
	f := os.NewFile(uintptr(fd), "the checkpoint command's output")
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || user >= 0 && int(st.Uid) != user {
		f.Close()
		return nil, fmt.Errorf("the checkpoint command's output is not the file that it was to write to")
	}
	return f, nil
}

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
