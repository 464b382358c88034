package run

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/clusterplan/clusterplan/lang"
)

// moduleDirs is where a definition's directory has the modules that it calls,
// wherever they lie: one name for each, so that a plan file holds them as it
// holds the definition's own files.
const moduleDirs = ".clusterplan/module/"

// tree is a definition's directory, with those of its modules under moduleDirs.
// A module is read through the directory that its source goes up to: no link in
// it leads out of that.
type tree struct {
	root fs.FS
	dir  string

	mu    sync.Mutex
	roots map[string]*os.Root // by directory
}

func newTree(dir string) *tree {
	return &tree{root: os.DirFS(dir), dir: dir, roots: map[string]*os.Root{}}
}

// Close closes the modules' directories.
func (t *tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, r := range t.roots {
		errs = append(errs, r.Close())
	}
	clear(t.roots)
	return errors.Join(errs...)
}

// at finds the directory that a name is of, and its name in it.
func (t *tree) at(name string) (fs.FS, string, error) {
	rest, ok := strings.CutPrefix(name, moduleDirs)
	if !ok {
		return t.root, name, nil
	}
	escaped, rest, _ := strings.Cut(rest, "/")
	dir, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, "", err
	}
	base := t.dir
	for dir == ".." || strings.HasPrefix(dir, "../") {
		base, dir = filepath.Join(base, ".."), strings.TrimPrefix(strings.TrimPrefix(dir, ".."), "/")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.roots[base]
	if r == nil {
		if r, err = os.OpenRoot(base); err != nil {
			return nil, "", err
		}
		t.roots[base] = r
	}
	return r.FS(), path.Join(".", dir, rest), nil
}

// Open is fs.FS.
func (t *tree) Open(name string) (fs.File, error) {
	fsys, name, err := t.at(name)
	if err != nil {
		return nil, err
	}
	f, err := fsys.Open(name)
	return f, outOfTree(err)
}

// ReadFile is fs.ReadFileFS.
func (t *tree) ReadFile(name string) ([]byte, error) {
	fsys, name, err := t.at(name)
	if err != nil {
		return nil, err
	}
	b, err := fs.ReadFile(fsys, name)
	return b, outOfTree(err)
}

// ReadDir is fs.ReadDirFS.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	fsys, name, err := t.at(name)
	if err != nil {
		return nil, err
	}
	list, err := fs.ReadDir(fsys, name)
	return list, outOfTree(err)
}

// Stat is fs.StatFS.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	fsys, name, err := t.at(name)
	if err != nil {
		return nil, err
	}
	info, err := fs.Stat(fsys, name)
	return info, outOfTree(err)
}

// outOfTree says in our words that a link leads out of the tree; os has no
// name for that error.
func outOfTree(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && p.Err != nil && strings.Contains(p.Err.Error(), "escapes from parent") {
		return &fs.PathError{Op: p.Op, Path: p.Path, Err: errors.New("a symbolic link leads out of the module's tree; put the file itself there")}
	}
	return err
}

// Modules finds modules in fsys, a tree or what a plan file holds of one.
func modules(fsys fs.FS) lang.Modules {
	return func(source, from string) (lang.Module, error) {
		switch {
		case strings.HasPrefix(source, "git::"):
			return lang.Module{}, errors.New("a module from git is not supported by this version. Put it into a directory, and name that, as ./modules/NAME")
		case strings.HasPrefix(source, "/"):
			return lang.Module{}, fmt.Errorf("%s is an absolute path, which is another directory on each machine. Name it from the directory of this file, as ./modules/NAME or ../modules/NAME", source)
		case source != "." && source != ".." && !strings.HasPrefix(source, "./") && !strings.HasPrefix(source, "../"):
			return lang.Module{}, fmt.Errorf("a directory begins with ./ or ../, and %q doesn't. Write ./%s", source, source)
		}
		dir := path.Join(from, source)
		name := url.PathEscape(dir)
		switch dir {
		case ".": // calls itself, or its caller
			return lang.Module{FS: fsys, Dir: dir}, nil
		case "..": // no name in an fs.FS
			name = "%2E%2E"
		}
		sub, err := fs.Sub(fsys, moduleDirs+name)
		if err != nil {
			return lang.Module{}, err
		}
		return lang.Module{FS: sub, Dir: dir}, nil
	}
}
