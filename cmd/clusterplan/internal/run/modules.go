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

	"github.com/clusterplan/clusterplan/internal/gitmodule"
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
	if home := gitmodule.CacheOf(dir); home != "" { // no link leads from a commit's tree to another's, or to the state
		base, dir = filepath.Join(base, filepath.FromSlash(home)), strings.TrimPrefix(strings.TrimPrefix(dir, home), "/")
	}
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

// cached tells whether a tree's name is of a module from git: a file of the
// cache, wherever the definition itself is read from.
func cached(name string) bool {
	return strings.HasPrefix(name, moduleDirs+url.PathEscape(gitmodule.CacheDir+"/"))
}

// cacheAside reads a definition's files, and those of modules from git from the
// directory's cache: these are the same for every revision that locks them, and
// belong to none of the definition's own.
type cacheAside struct {
	fs.FS
	tree *tree
}

func (c cacheAside) at(name string) fs.FS {
	if cached(name) {
		return c.tree
	}
	return c.FS
}

// Open is fs.FS.
func (c cacheAside) Open(name string) (fs.File, error) { return c.at(name).Open(name) }

// ReadFile is fs.ReadFileFS.
func (c cacheAside) ReadFile(name string) ([]byte, error) { return fs.ReadFile(c.at(name), name) }

// ReadDir is fs.ReadDirFS.
func (c cacheAside) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(c.at(name), name) }

// Stat is fs.StatFS.
func (c cacheAside) Stat(name string) (fs.FileInfo, error) { return fs.Stat(c.at(name), name) }

// modules finds modules in fsys, a tree or what a plan file holds of one. fetch
// is nil, or gets those from git first.
func modules(fsys fs.FS, fetch func(gitmodule.Source) (gitmodule.Locked, error)) lang.Modules {
	lock := sync.OnceValues(func() (*gitmodule.Lock, error) { return gitmodule.ReadLock(fsys) })
	if fetch == nil {
		fetch = func(s gitmodule.Source) (gitmodule.Locked, error) {
			l, err := lock()
			if err != nil {
				return gitmodule.Locked{}, err
			}
			return l.Find(s)
		}
	}
	module := func(dir string) (lang.Module, error) {
		name := url.PathEscape(dir)
		switch dir {
		case ".": // calls itself, or its caller
			return lang.Module{FS: fsys, Dir: dir}, nil
		case "..": // no name in an fs.FS
			name = "%2E%2E"
		}
		sub, err := fs.Sub(fsys, moduleDirs+name)
		return lang.Module{FS: sub, Dir: dir}, err
	}
	return func(source, from string) (lang.Module, error) {
		if strings.HasPrefix(source, gitmodule.Prefix) {
			s, err := gitmodule.Parse(source)
			if err != nil {
				return lang.Module{}, err
			}
			locked, err := fetch(s)
			if err != nil {
				return lang.Module{}, err
			}
			m, err := module(path.Join(locked.Cache(), s.Dir))
			if err != nil {
				return m, err
			}
			if _, err := fs.ReadDir(m.FS, "."); errors.Is(err, fs.ErrNotExist) {
				whole, err := module(locked.Cache())
				if err == nil {
					_, err = fs.ReadDir(whole.FS, ".")
				}
				return m, gitmodule.Missing(s, locked, err == nil)
			}
			return m, nil
		}
		dir, err := directory(source, from)
		if err != nil {
			return lang.Module{}, err
		}
		return module(dir)
	}
}

// directory is a module's that lies in one, from the root's.
func directory(source, from string) (string, error) {
	switch {
	case strings.HasPrefix(source, "/"):
		return "", fmt.Errorf("%s is an absolute path, which is another directory on each machine. Name it from the directory of this file, as ./modules/NAME or ../modules/NAME", source)
	case source != "." && source != ".." && !strings.HasPrefix(source, "./") && !strings.HasPrefix(source, "../"):
		return "", fmt.Errorf("a directory begins with ./ or ../, and %q doesn't. Write ./%s", source, source)
	}
	dir := path.Join(from, source)
	if !gitmodule.Inside(from, dir) {
		return "", fmt.Errorf("%s leads out of the repository that this module is from. Name a directory in it, or another repository: git::URL//DIRECTORY?ref=REF", source)
	}
	return dir, nil
}

// LocateModule is where an editor finds a module: its directory from root's, and
// the one that no link in it may lead out of; "": any may.
func LocateModule(root fs.FS, source, from string) (dir, home string, err error) {
	if !strings.HasPrefix(source, gitmodule.Prefix) {
		dir, err = directory(source, from)
		return dir, gitmodule.CacheOf(dir), err
	}
	s, locked, err := gitmodule.Locate(root, source)
	if err != nil {
		return "", "", err
	}
	dir, home = path.Join(locked.Cache(), s.Dir), locked.Cache()
	if _, err := fs.Stat(root, dir); errors.Is(err, fs.ErrNotExist) {
		_, err := fs.Stat(root, home)
		return "", "", gitmodule.Missing(s, locked, err == nil)
	}
	return dir, home, nil
}
