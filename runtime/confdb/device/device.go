// Package device reads and writes a quorum device: a block device or a file
// that several hosts see, in whole blocks of 4096 bytes, past the page cache;
// what can't be read so is refused, but for a file in memory, which one host
// alone sees. A write is durable when it is done.
//
// Each operation has a goroutine of its own, so that one that hangs (a disk or
// a server that doesn't answer) keeps nobody else; there are never more than the
// driver has under way, which are a few. What fails is opened anew at the next
// read, and before each read the path has to name the file that is open: so a
// device that was taken away is lost, and one that is back is found. A write, but
// one that creates, goes to the file that was open when it was asked for: never
// to one that was put in its place and that nobody has looked at.
package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

const block = 4096

// Device is one quorum device. Its methods may be called at any time.
type Device struct {
	path string

	mu   sync.Mutex
	open *opened // nil: to be opened
	free [][]byte
	done bool
}

// opened is a file and how many operations use it.
type opened struct {
	fd    int
	users int
	stale bool
	block bool
	size  int64
	dev   uint64
	ino   uint64
}

// New is the device at path. Nothing is opened yet.
func New(path string) *Device { return &Device{path: path} }

// Do carries op out in a goroutine of its own and then calls then with what
// became of it. The result's data may be used during the call only.
func (d *Device) Do(op confdb.DeviceOp, then func(confdb.DeviceResult)) {
	f := d.current()
	go func() {
		r, buf := d.operate(op, f)
		then(r)
		d.keep(buf)
	}()
}

// Close lets the file go once the operations under way are done; they may hang,
// so it doesn't wait for them.
func (d *Device) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = true
	d.drop(d.open)
}

func (d *Device) operate(op confdb.DeviceOp, f *opened) (r confdb.DeviceResult, buf []byte) {
	r.ID = op.ID
	fail := func(err error) (confdb.DeviceResult, []byte) {
		r.Err, r.Missing, r.Data = err.Error(), errors.Is(err, fs.ErrNotExist) && isDir(filepath.Dir(d.path)), nil
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			r.Err += " (the file system of the quorum device is full)"
		}
		return r, buf
	}
	if f == nil {
		if op.Data != nil && !op.Create {
			return fail(errLost)
		}
		var err error
		if f, err = d.use(op.Create); err != nil {
			return fail(err)
		}
	}
	var err error
	r.Size = f.size
	if op.Data != nil {
		buf = d.buffer((len(op.Data) + block - 1) / block * block)
		clear(buf[copy(buf, op.Data):])
		if err = f.reserve(op); err == nil {
			err = writeAll(f.fd, buf, op.Offset)
		}
	} else {
		buf = d.buffer(op.Length)
		if err = d.same(f); err == nil {
			err = readAll(f.fd, buf, op.Offset)
		}
		r.Data = buf
	}
	d.release(f, err != nil)
	if err != nil {
		return fail(err)
	}
	return r, buf
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

var errLost = errors.New("it failed, and is read before it is written again")

// current is the open file, for release; nil: none is.
func (d *Device) current() *opened {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open != nil {
		d.open.users++
	}
	return d.open
}

// use returns the open file, for release, and opens it where none is.
func (d *Device) use(create bool) (*opened, error) {
	if f := d.current(); f != nil {
		return f, nil
	}
	f, err := openFile(d.path, create) // may hang
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f.users = 1
	if d.open == nil && !d.done {
		d.open = f
	} else {
		f.stale = true // two opened at once
	}
	return f, nil
}

func (d *Device) release(f *opened, failed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.users--
	if failed {
		f.stale = true
	}
	if f.stale {
		d.drop(f)
	}
}

// drop closes a file that nobody uses any more; who still does will.
func (d *Device) drop(f *opened) {
	if f == nil {
		return
	}
	f.stale = true
	if d.open == f {
		d.open = nil
	}
	if f.users == 0 && f.fd >= 0 {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
}

func openFile(path string, create bool) (*opened, error) {
	flags := unix.O_RDWR | unix.O_DSYNC | unix.O_CLOEXEC
	if create {
		flags |= unix.O_CREAT
	}
	fd, err := unix.Open(path, flags|unix.O_DIRECT, 0o600)
	direct := err == nil
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.Open(path, flags, 0o600)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := &opened{fd: fd}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		f.dev, f.ino = st.Dev, st.Ino
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if !direct && !inMemory(fd) {
				err = errCached
			}
		case unix.S_IFBLK:
			f.block = true
			if f.size, err = unix.Seek(fd, 0, unix.SEEK_END); err == nil && !direct {
				err = errCached
			}
		default:
			err = errors.New("it is neither a file nor a block device")
		}
	}
	if err == nil && create {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

var errCached = errors.New("it can't be read past the page cache (O_DIRECT), and what another host writes would not be seen")

// inMemory tells whether a file's only copy is this host's page cache.
func inMemory(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// same wants the path to name what is open still.
func (d *Device) same(f *opened) error {
	var st unix.Stat_t
	if err := unix.Stat(d.path, &st); err != nil {
		return &fs.PathError{Op: "find", Path: d.path, Err: err}
	}
	if st.Dev != f.dev || st.Ino != f.ino {
		return fmt.Errorf("%s is another file than it was", d.path)
	}
	return nil
}

// reserve has the file system set blocks aside, where it can.
func (f *opened) reserve(op confdb.DeviceOp) error {
	if op.Reserve == 0 || f.block {
		return nil
	}
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, op.Offset, op.Reserve)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("set %d MiB aside: %w", op.Reserve>>20, err)
	}
	return nil
}

func readAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, at)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read at %d: %w", at, err)
		case n == 0:
			clear(b) // a file's end
			return nil
		}
		b, at = b[n:], at+int64(n)
		if n%block != 0 { // a file's end within a block
			clear(b)
			return nil
		}
	}
	return nil
}

func writeAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write at %d: %w", at, err)
		}
		if n%block != 0 || n == 0 {
			return fmt.Errorf("write at %d: %w after %d of %d bytes", at, unix.ENOSPC, n, len(b))
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// buffer is n bytes that begin at a block's multiple in memory, as O_DIRECT wants.
func (d *Device) buffer(n int) []byte {
	d.mu.Lock()
	for i, b := range d.free {
		if cap(b) >= n && cap(b) <= 4*n+64*block {
			d.free[i] = d.free[len(d.free)-1]
			d.free = d.free[:len(d.free)-1]
			d.mu.Unlock()
			return b[:n]
		}
	}
	d.mu.Unlock()
	b := make([]byte, n+block)
	skip := 0
	if n > 0 {
		skip = int(-uintptr(unsafe.Pointer(&b[0])) & (block - 1))
	}
	return b[skip : skip+n : skip+n]
}

// keep has a buffer used again; large ones are not worth their memory.
func (d *Device) keep(b []byte) {
	const most, largest = 4, 512 << 10
	if cap(b) == 0 || cap(b) > largest {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.free) < most {
		d.free = append(d.free, b)
	}
}
