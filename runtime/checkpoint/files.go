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
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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
