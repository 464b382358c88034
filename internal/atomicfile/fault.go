package atomicfile

import (
	"os"
	"sync/atomic"
	"syscall"
)

var injected atomic.Pointer[func(op, path string) error]

// Inject is for tests: until undo, fault is asked before each effect on the disk
// of this package and of those that ask Fault, and its error is what the disk
// said. Operations are create, write, chmod, sync (also of a directory), close,
// open, link, rename, truncate and remove; path may be a temporary file's.
func Inject(fault func(op, path string) error) (undo func()) {
	injected.Store(&fault)
	return func() { injected.Store(nil) }
}

// Fault is what a test has the disk say before an effect: nil but there.
func Fault(op, path string) error {
	fault := injected.Load()
	if fault == nil {
		return nil
	}
	if err := (*fault)(op, path); err != nil {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// Append writes data to f, where it stands. A fault leaves half of it.
func Append(f *os.File, data []byte) error {
	if err := Fault("write", f.Name()); err != nil {
		_, _ = f.Write(data[:len(data)/2])
		return err
	}
	_, err := f.Write(data)
	return err
}

// Sync has f's data be durable, and of the rest what is needed to read it.
func Sync(f *os.File) error {
	if err := Fault("sync", f.Name()); err != nil {
		return err
	}
	if err := syscall.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

// Remove removes the file path.
func Remove(path string) error {
	if err := Fault("remove", path); err != nil {
		return err
	}
	return os.Remove(path)
}

// Rename renames a file.
func Rename(from, to string) error {
	if err := Fault("rename", to); err != nil {
		return err
	}
	return os.Rename(from, to)
}
