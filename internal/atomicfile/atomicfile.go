// Package atomicfile replaces files so that a reader, or a crash at any
// moment, finds the old content or the new and never a part of it.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Prefix of the temporary files. One that a crash left behind may be removed.
const Prefix = ".tmp-"

// Write puts data into the file path with the permissions perm, whatever the
// umask: a temporary file in the same directory, synced, renamed over path,
// the directory synced. The directory must exist. After an error path is as it
// was, unless only the last sync failed.
func Write(path string, data []byte, perm os.FileMode) error {
	return WriteIf(path, data, perm, nil)
}

// WriteIf is Write that asks check when everything but the renaming is done, and
// goes on only without an error, which is then returned as it is. tmp is the
// temporary file: whoever removes it, also while check runs, keeps path as it was.
func WriteIf(path string, data []byte, perm os.FileMode, check func(tmp string) error) error {
	dir := filepath.Dir(path)
	err := Fault("create", path)
	var f *os.File
	if err == nil {
		f, err = os.CreateTemp(dir, Prefix+filepath.Base(path)+"-*")
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = errors.Join(Append(f, data), Fault("chmod", f.Name()), f.Chmod(perm))
	if err == nil {
		err = Fault("sync", f.Name())
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, Fault("close", f.Name()), f.Close())
	if err == nil && check != nil {
		if err := check(f.Name()); err != nil {
			os.Remove(f.Name())
			return err
		}
	}
	if err == nil {
		err = Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(dir)
}

// SyncDir makes what was created, renamed or removed in dir durable.
func SyncDir(dir string) error {
	if err := Fault("sync", dir); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
