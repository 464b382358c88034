package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/providers"
)

const errInUse = unix.EADDRINUSE

// files are the files under root.
type files struct {
	root string
}

func (f files) path(p string) string { return filepath.Join(f.root, filepath.FromSlash(p)) }

func (f files) Read(ctx context.Context, path string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return os.ReadFile(f.path(path))
}

func (f files) Write(ctx context.Context, all ...providers.File) error {
	for _, one := range all {
		p, err := f.parent(ctx, one.Path)
		if err == nil {
			err = atomicfile.Write(p, one.Data, one.Perm)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parent makes the directory of path and returns path on this machine.
func (f files) parent(ctx context.Context, path string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p := f.path(path)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	return p, nil
}

// Copy copies: a hard link would follow a program that is rebuilt in place.
func (f files) Copy(ctx context.Context, local, _, path string, perm fs.FileMode) error {
	p, err := f.parent(ctx, path)
	if err != nil {
		return err
	}
	in, err := os.Open(local)
	if err != nil {
		return fmt.Errorf("copy %s: %w", local, err)
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(p), atomicfile.Prefix+filepath.Base(p)+"-*")
	if err != nil {
		return fmt.Errorf("copy %s: %w", local, err)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(perm))
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(out.Name(), p)
	}
	if err != nil {
		os.Remove(out.Name())
		return fmt.Errorf("copy %s: %w", local, err)
	}
	return atomicfile.SyncDir(filepath.Dir(p))
}

func (f files) Link(ctx context.Context, target, path string) error {
	p, err := f.parent(ctx, path)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(p), atomicfile.Prefix+filepath.Base(p))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, p); err != nil {
		os.Remove(tmp)
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(p))
}

func (f files) ReadLink(ctx context.Context, path string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return os.Readlink(f.path(path))
}

func (f files) List(ctx context.Context, dir string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(f.path(dir))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(f.path(dir)); err == nil { // to a disk that isn't mounted, perhaps
			return nil, fmt.Errorf("%s is a link to what isn't there", f.path(dir))
		}
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (f files) Remove(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return os.RemoveAll(f.path(path))
}
