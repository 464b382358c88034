package checkpoint

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are being restored. One that a crash
// left behind is removed by the next restore into its directory.
const tempPrefix = ".clusterplan-restore-"

// stamp tells whether a file changed.
type stamp struct {
	path     string
	size     int64
	mtime    int64 // Unix nanoseconds
	ctime    int64
	inode    uint64
	mode     uint32 // permission bits, setuid, setgid and sticky
	uid, gid uint32
}

const permBits = 0o7777

// openAt opens a path of which no part is a symbolic link.
func openAt(path string, flags int) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK), Resolve: unix.RESOLVE_NO_SYMLINKS})
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR) && isLink(path):
		return nil, fmt.Errorf("%s is a symbolic link, or lies behind one; a checkpoint follows none: name the file itself", path)
	case errors.Is(err, unix.ENOSYS):
		return nil, fmt.Errorf("open %s: this kernel is older than Linux 5.6, which checkpoints of files need", path)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

// openFile opens a regular file for reading.
func openFile(path string) (*os.File, error) {
	f, err := openAt(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is no regular file; a checkpoint keeps only such", path)
	}
	return f, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func stampOf(path string, f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return statStamp(path, &st), nil
}

func statStamp(path string, st *unix.Stat_t) stamp {
	return stamp{path: path, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), inode: st.Ino, mode: st.Mode & permBits, uid: st.Uid, gid: st.Gid}
}

// scan finds the regular files at or below paths, sorted, each once. A path that
// isn't there is no error: that is what is kept.
func scan(paths []string) ([]stamp, error) {
	var found []stamp
	var bytes int64
	add := func(s stamp) error {
		found = append(found, s)
		if bytes += s.size; bytes > maxBytes {
			return fmt.Errorf("%s: the files are larger than %d MiB, the most for one resource; put less into its checkpoint", paths[0], maxBytes>>20)
		}
		if len(found) > maxFiles {
			return fmt.Errorf("%s: there are more than %d files, the most for one resource; put less into its checkpoint", paths[0], maxFiles)
		}
		return nil
	}
	for _, path := range paths {
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case err != nil:
			return nil, &fs.PathError{Op: "look at", Path: path, Err: err}
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			if err := add(statStamp(path, &st)); err != nil {
				return nil, err
			}
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			if err := scanDir(path, add); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%s is neither a regular file nor a directory; a checkpoint keeps only such", path)
		}
	}
	slices.SortFunc(found, func(a, b stamp) int { return strings.Compare(a.path, b.path) })
	return slices.CompactFunc(found, func(a, b stamp) bool { return a.path == b.path }), nil
}

func scanDir(dir string, add func(stamp) error) error {
	d, err := openAt(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", dir, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // gone meanwhile
		}
		path := filepath.Join(dir, name)
		switch {
		case err != nil:
			err = &fs.PathError{Op: "look at", Path: path, Err: err}
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			err = add(statStamp(path, &st))
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = scanDir(path, add)
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			err = fmt.Errorf("%s is a symbolic link, which a checkpoint doesn't keep", path)
		} // sockets, pipes and devices are made by who needs them
		if err != nil {
			return err
		}
	}
	return nil
}

// send cuts what r has into chunks and sends those that the database lacks.
func (k *Keeper) send(ctx context.Context, r io.Reader, f *File) error {
	buf := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			sum := sha256.Sum256(buf[:n])
			hash := hex.EncodeToString(sum[:])
			if !k.known[hash] {
				if err := k.conf.Store.PutChunk(ctx, buf[:n]); err != nil {
					return err
				}
				k.known[hash] = true
			}
			f.Chunks = append(f.Chunks, hash)
			if f.Size += int64(n); f.Size > maxBytes {
				return fmt.Errorf("%s is larger than %d MiB, the most for one resource", orOutput(f.Path), maxBytes>>20)
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", orOutput(f.Path), err)
		}
	}
}

func orOutput(path string) string {
	if path == "" {
		return "the command's output"
	}
	return path
}

// covers tells whether the definition names path or a directory above it.
func (k *Keeper) covers(path string) bool {
	return slices.ContainsFunc(k.paths, func(p string) bool {
		return p == path || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/")
	})
}

// writeFile replaces a file, as one, through the descriptor of its directory.
// Directories above it that are missing are made, for their owner alone.
func writeFile(ctx context.Context, f File, chunk func(context.Context, string) ([]byte, error)) error {
	dir, name := filepath.Split(f.Path)
	d, err := makeDir(filepath.Clean(dir), f)
	if err != nil {
		return err
	}
	defer d.Close()
	cleanTemps(d)
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	temp := tempPrefix + hex.EncodeToString(random[:])
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

func cleanTemps(d *os.File) {
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			_ = unix.Unlinkat(int(d.Fd()), name, 0)
		}
	}
}

// removeOthers removes the files at or below the paths that the checkpoint
// doesn't have: they were deleted elsewhere, and would come back.
func (k *Keeper) removeOthers(files []File) error {
	have := make(map[string]bool, len(files))
	for _, f := range files {
		have[k.place(f.Path)] = true
	}
	// What lies there may be more than a checkpoint's limits; none of it is read.
	there, err := scan(k.paths)
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
