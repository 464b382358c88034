package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// scan finds the regular files at or below paths, sorted, each once. A path that
// isn't there is no error: that is what is kept.
func scan(paths []string) ([]stamp, error) {
	var bytes int64
	n := 0
	return find(paths, nil, func(s stamp) error {
		if bytes += s.size; bytes > maxBytes {
			return fmt.Errorf("%s: the files are larger than %d MiB, the most for one resource; put less into its checkpoint", paths[0], maxBytes>>20)
		}
		if n++; n > maxFiles {
			return fmt.Errorf("%s: there are more than %d files, the most for one resource; put less into its checkpoint", paths[0], maxFiles)
		}
		if !utf8.ValidString(s.path) { // it would come back under another name
			return fmt.Errorf("the name of %q is no UTF-8, which a checkpoint can't keep; give the file another name", s.path)
		}
		return nil
	})
}

// find is scan without its limits; may is asked of each file. What restores left
// in the directories is no file; temp, if there is one, is told of it.
func find(paths []string, temp func(dir *os.File, name string) error, may func(stamp) error) ([]stamp, error) {
	var found []stamp
	add := func(s stamp) error {
		found = append(found, s)
		return may(s)
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
			if err := scanDir(path, temp, add); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%s is neither a regular file nor a directory; a checkpoint keeps only such", path)
		}
	}
	slices.SortFunc(found, func(a, b stamp) int { return strings.Compare(a.path, b.path) })
	return slices.CompactFunc(found, func(a, b stamp) bool { return a.path == b.path }), nil
}

func scanDir(dir string, temp func(*os.File, string) error, add func(stamp) error) error {
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
			if temp != nil {
				if err := temp(d, name); err != nil {
					return err
				}
			}
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
			err = scanDir(path, temp, add)
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			err = fmt.Errorf("%s is a symbolic link, which a checkpoint doesn't keep", path)
		} // sockets, pipes and devices are made by who needs them
		if err != nil {
			return err
		}
	}
	return nil
}
