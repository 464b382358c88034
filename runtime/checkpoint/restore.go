package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are being restored, and of the mark
// that a restore is under way. One that a crash left behind is removed by the
// next restore of its file.
const tempPrefix = ".clusterplan-restore-"

// writeFile replaces a file, as one, through the descriptor of its directory.
// Directories above it that are missing are made, for their owner alone.
func writeFile(ctx context.Context, f File, chunk func(context.Context, string) ([]byte, error)) error {
	dir, name := filepath.Split(f.Path)
	d, err := makeDir(filepath.Clean(dir), f)
	if err != nil {
		return err
	}
	defer d.Close()
	// The name is the file's own: what lies there is of a restore of this file that
	// was cut off, and none of another resource's that is under way in the directory.
	temp := tempPrefix + tag(name)
	if err := unix.Unlinkat(int(d.Fd()), temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("restore %s: %w", f.Path, err)
	}
	fd, err := unix.Openat(int(d.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("restore %s: %w", f.Path, err)
	}
	out := os.NewFile(uintptr(fd), f.Path)
	err = fill(ctx, out, f, chunk)
	if err == nil {
		// Owner before mode: to change the owner takes setuid and setgid away.
		if cerr := out.Chown(int(f.UID), int(f.GID)); cerr != nil && os.Geteuid() == 0 {
			err = cerr
		}
	}
	if err == nil {
		err = unix.Fchmod(fd, f.Mode&permBits)
	}
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = unix.Renameat(int(d.Fd()), temp, int(d.Fd()), name)
	}
	if err != nil {
		_ = unix.Unlinkat(int(d.Fd()), temp, 0)
		return fmt.Errorf("restore %s: %w", f.Path, err)
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("restore %s: %w", f.Path, err)
	}
	return nil
}

func fill(ctx context.Context, out io.Writer, f File, chunk func(context.Context, string) ([]byte, error)) error {
	var size int64
	for _, hash := range f.Chunks {
		data, err := chunk(ctx, hash)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hash {
			return fmt.Errorf("chunk %s came damaged", hash)
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
		size += int64(len(data))
	}
	if size != f.Size {
		return fmt.Errorf("%d bytes came, %d were kept", size, f.Size)
	}
	return nil
}

// makeDir opens a directory of which no part is a symbolic link, and makes what
// is missing of it: for the file's owner alone.
func makeDir(dir string, f File) (*os.File, error) {
	d, err := openAt(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	parent, name := filepath.Split(dir)
	up, err := makeDir(filepath.Clean(parent), f)
	if err != nil {
		return nil, err
	}
	defer up.Close()
	if err := unix.Mkdirat(int(up.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "make directory", Path: dir, Err: err}
	}
	if d, err = openAt(dir, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if err := d.Chown(int(f.UID), int(f.GID)); err != nil {
			d.Close()
			return nil, fmt.Errorf("make directory %s: %w", dir, err)
		}
	}
	return d, nil
}

// removeOthers removes the files at or below the paths that the checkpoint
// doesn't have: they were deleted elsewhere, and would come back.
func (k *Keeper) removeOthers(files []File) error {
	have := make(map[string]bool, len(files))
	for _, f := range files {
		have[k.place(f.Path)] = true
	}
	// What lies there may be more than a checkpoint's limits; none of it is read.
	there, err := find(k.paths, nil, func(stamp) error { return nil })
	if err != nil {
		return err
	}
	for _, s := range there {
		if have[s.path] {
			continue
		}
		dir, name := filepath.Split(s.path)
		d, err := openAt(filepath.Clean(dir), unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Unlinkat(int(d.Fd()), name, 0)
		d.Close()
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove %s, which the checkpoint doesn't have: %w", s.path, err)
		}
	}
	return nil
}

// A restore that is cut off on the node that had the files last can't be told by
// the database, which names that node before and after. So a mark lies beside the
// first file from before anything is written until all of it is.
func markOf(files []File) (file File, mark string, ok bool) {
	if len(files) == 0 || files[0].Path == "" {
		return File{}, "", false
	}
	return files[0], tempPrefix + "under-way-" + tag(filepath.Base(files[0].Path)), true
}

func (k *Keeper) halfRestored(files []File) bool {
	f, mark, ok := markOf(files)
	return ok && exists(filepath.Join(filepath.Dir(k.place(f.Path)), mark))
}

func (k *Keeper) markRestore(files []File) error {
	f, mark, ok := markOf(files)
	if !ok || !k.covers(k.place(f.Path)) {
		return nil
	}
	d, err := makeDir(filepath.Dir(k.place(f.Path)), f)
	if err != nil {
		return err
	}
	defer d.Close()
	fd, err := unix.Openat(int(d.Fd()), mark, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("restore %s: %w", f.Path, err)
	}
	_ = unix.Close(fd)
	return d.Sync()
}

// unmarkRestore says that all is there, and removes what restores that were cut
// off left in the directories: an old mark would bring old files back one day.
func (k *Keeper) unmarkRestore(files []File) error {
	remove := func(d *os.File, name string) error {
		if err := unix.Unlinkat(int(d.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove %s: %w", filepath.Join(d.Name(), name), err)
		}
		return d.Sync()
	}
	if _, err := find(k.paths, remove, func(stamp) error { return nil }); err != nil {
		return err
	}
	f, mark, ok := markOf(files)
	if !ok || !k.halfRestored(files) {
		return nil
	}
	d, err := openAt(filepath.Dir(k.place(f.Path)), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	return remove(d, mark)
}

// tag is a file's name as part of another one's, of any length.
func tag(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}
