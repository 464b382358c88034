package revision

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Reads remembers what was read of a directory's files: which ones, and in
// which version. That is all that a plan can depend on, so that comparing it
// with a commit tells whether the plan is of that commit.
type Reads struct {
	fs.FS
	mu     sync.Mutex
	files  map[string][sha256.Size]byte
	absent map[string]bool
	listed map[string][]string // directories, with the names of what is no directory in them
}

// Watch reads fsys, and remembers.
func Watch(fsys fs.FS) *Reads {
	return &Reads{FS: fsys, files: map[string][sha256.Size]byte{}, absent: map[string]bool{}, listed: map[string][]string{}}
}

// ReadFile is fs.ReadFileFS.
func (w *Reads) ReadFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(w.FS, name)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.files[name] = sha256.Sum256(data)
	case errors.Is(err, fs.ErrNotExist):
		w.absent[name] = true
	}
	return data, err
}

// ReadDir is fs.ReadDirFS.
func (w *Reads) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	if err == nil {
		names := []string{}
		for _, e := range entries {
			if !e.IsDir() {
				names = append(names, e.Name())
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.listed[name] = names
	}
	return entries, err
}

// Stat is fs.StatFS.
func (w *Reads) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(w.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.absent[name] = true
	}
	return info, err
}

// Dirty tells whether what was read is something else than the commit (a whole
// hash) has. where says which file of the repository a name is; false: it is none,
// and no commit has it. counts tells which names in
// a directory that was listed would have been read, had they been there. Files
// that git ignores count for nothing: what they say is not meant to be versioned.
func (r *Repo) Dirty(commit string, w *Reads, where func(name string) (string, bool), counts func(string) bool) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if commit == "" {
		return true, nil
	}
	head, err := r.Tree(commit, ".")
	if err != nil {
		return false, err
	}
	ignored := &ignores{repo: r}
	for name, sum := range w.files {
		full, ok := where(name)
		if !ok {
			return true, nil
		}
		data, err := head.ReadFile(full)
		switch {
		case err == nil && sha256.Sum256(data) == sum:
		case errors.Is(err, fs.ErrNotExist) && ignored.match(full):
		case errors.Is(err, ErrMissing):
			return false, err
		default:
			return true, nil
		}
	}
	for name := range w.absent {
		full, ok := where(name)
		if !ok {
			continue
		}
		if _, err := head.Stat(full); err == nil {
			return true, nil
		}
	}
	for name, now := range w.listed {
		full, ok := where(name)
		if !ok {
			return true, nil
		}
		entries, err := head.ReadDir(full)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		then := map[string]bool{}
		for _, e := range entries {
			if !e.IsDir() && counts(e.Name()) {
				then[e.Name()] = true
			}
		}
		for _, file := range now {
			if counts(file) && !then[file] && !ignored.match(path.Join(full, file)) {
				return true, nil
			}
			delete(then, file)
		}
		if len(then) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// ignores are a repository's patterns of files to ignore, read as far as paths
// that are asked for need them.
type ignores struct {
	repo   *Repo
	common []gitignore.Pattern // for all paths
	read   bool
	dirs   map[string][]gitignore.Pattern
}

// match tells whether git ignores a file of the repository, unless it is tracked.
func (g *ignores) match(name string) bool {
	if !g.read {
		g.read, g.dirs = true, map[string][]gitignore.Pattern{}
		root := osfs.New("/")
		if list, err := gitignore.LoadSystemPatterns(root); err == nil {
			g.common = append(g.common, list...)
		}
		if list, err := gitignore.LoadGlobalPatterns(root); err == nil && len(list) > 0 {
			g.common = append(g.common, list...)
		} else {
			config := os.Getenv("XDG_CONFIG_HOME")
			if home, err := os.UserHomeDir(); config == "" && err == nil {
				config = filepath.Join(home, ".config")
			}
			g.common = append(g.common, patterns(filepath.Join(config, "git", "ignore"), nil)...)
		}
		g.common = append(g.common, patterns(filepath.Join(g.repo.common, "info", "exclude"), nil)...)
	}
	all := g.common
	split := strings.Split(path.Clean(name), "/")
	for i := range split {
		domain := split[:i]
		key := strings.Join(domain, "/")
		list, ok := g.dirs[key]
		if !ok {
			list = patterns(filepath.Join(g.repo.Root, filepath.FromSlash(key), ".gitignore"), domain)
			g.dirs[key] = list
		}
		all = append(all[:len(all):len(all)], list...)
	}
	matcher := gitignore.NewMatcher(all)
	for i := 1; i < len(split); i++ {
		if matcher.Match(split[:i], true) {
			return true // a directory, and all that is in it
		}
	}
	return matcher.Match(split, false)
}

func patterns(file string, domain []string) []gitignore.Pattern {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var out []gitignore.Pattern
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, gitignore.ParsePattern(line, domain))
		}
	}
	return out
}
