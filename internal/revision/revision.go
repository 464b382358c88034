// Package revision is a definition's place in git: which commit its directory
// is at, whether what was read of it is what that commit says, and its files as
// of another revision, as an fs.FS.
//
// It reads the repository's files itself (go-git's storage): no git program, no
// hooks, no configuration that runs anything. It writes nothing, never looks at
// the index, and never walks a history but for the parents that an expression
// names, nor a tree but for the paths that are asked for: the cost doesn't grow
// with the repository.
//
// Start reading at Open; expression.go has revisions, tree.go files as of a
// commit, dirty.go the comparison with what was read.
package revision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// Errors, wrapped with what and where.
var (
	ErrNone     = errors.New("it lies in no git repository")
	ErrBare     = errors.New("it is a bare repository")
	ErrRevision = errors.New("there is no such revision")
	ErrMissing  = errors.New("the repository lacks an object")
)

// Repo is the repository that a directory lies in.
type Repo struct {
	Root string // of the working tree
	Dir  string // the directory, relative to Root, with slashes; "." is Root

	store   *filesystem.Storage
	common  string // the repository's own directory, a linked worktree's main one
	shallow bool
	trees   map[plumbing.Hash]*object.Tree // that were read
}

// Open finds the repository of dir: in it or above. ErrNone: there is none.
func Open(dir string) (*Repo, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, fmt.Errorf("look for a git repository: %w", err)
	}
	for at := real; ; at = filepath.Dir(at) {
		git, err := gitDir(at)
		if errors.Is(err, fs.ErrNotExist) {
			if at != filepath.Dir(at) {
				continue
			}
			return nil, fmt.Errorf("%s: %w", dir, ErrNone)
		}
		if err != nil {
			return nil, fmt.Errorf("open the git repository of %s: %w", at, err)
		}
		if git == at {
			return nil, fmt.Errorf("%s: %w", at, ErrBare)
		}
		r, err := open(git)
		if err != nil {
			return nil, fmt.Errorf("open the git repository of %s: %w", at, err)
		}
		rel, err := filepath.Rel(at, real)
		if err != nil {
			return nil, err
		}
		r.Root, r.Dir = at, filepath.ToSlash(rel)
		return r, nil
	}
}

// gitDir is the repository that a working tree in dir belongs to: its .git, or
// what that, as a file, names (a linked worktree's, a submodule's). A bare
// repository's is itself. fs.ErrNotExist: dir is none of these.
func gitDir(dir string) (string, error) {
	dot := filepath.Join(dir, ".git")
	info, err := os.Stat(dot)
	switch {
	case err == nil && info.IsDir():
		if isGitDir(dot) {
			return dot, nil
		}
		return "", fs.ErrNotExist // git goes on above as well
	case err == nil:
		text, err := os.ReadFile(dot)
		if err != nil {
			return "", err
		}
		to, ok := strings.CutPrefix(string(text), "gitdir:")
		if !ok {
			return "", fmt.Errorf("%s is a file, and names no repository (gitdir: ...)", dot)
		}
		to = strings.TrimSpace(to)
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		if !isGitDir(to) {
			return "", fmt.Errorf("%s names %s, which is no git repository; if that was moved: git worktree repair", dot, to)
		}
		return to, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if isGitDir(dir) {
		return dir, nil
	}
	return "", fs.ErrNotExist
}

// isGitDir tells a repository from any directory, as git does.
func isGitDir(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, "HEAD")); err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, "commondir")); err == nil {
		return true
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

func open(git string) (*Repo, error) {
	r := &Repo{common: git, trees: map[plumbing.Hash]*object.Tree{}}
	var files billy.Filesystem = osfs.New(git)
	switch text, err := os.ReadFile(filepath.Join(git, "commondir")); {
	case err == nil:
		if r.common = strings.TrimSpace(string(text)); !filepath.IsAbs(r.common) {
			r.common = filepath.Join(git, r.common)
		}
		if !isGitDir(r.common) {
			return nil, fmt.Errorf("%s names %s, which is no git repository; if that was moved: git worktree repair", filepath.Join(git, "commondir"), r.common)
		}
		files = dotgit.NewRepositoryFilesystem(files, osfs.New(r.common))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	// Alternates (git clone --shared) are named by absolute paths.
	r.store = filesystem.NewStorageWithOptions(files, cache.NewObjectLRUDefault(), filesystem.Options{AlternatesFS: osfs.New("/")})
	conf, err := r.store.Config()
	if err != nil {
		return nil, fmt.Errorf("read its configuration: %w", err)
	}
	if s := conf.Raw.Section("extensions"); s != nil {
		if format := s.Option("objectformat"); format != "" && !strings.EqualFold(format, "sha1") {
			return nil, fmt.Errorf("its objects are named by %s; this version reads sha1 repositories only", format)
		}
		if format := s.Option("refstorage"); format != "" && !strings.EqualFold(format, "files") {
			return nil, fmt.Errorf("its refs are stored as %s; this version reads them from files only (git refs migrate --ref-format=files)", format)
		}
	}
	list, err := r.store.Shallow()
	if err != nil {
		return nil, fmt.Errorf("read which commits it has: %w", err)
	}
	r.shallow = len(list) > 0
	return r, nil
}

// Remote is the URL of a remote, as the repository's configuration has it: it may hold
// a password.
func (r *Repo) Remote(name string) (string, error) {
	c, err := r.store.Config()
	if err != nil {
		return "", fmt.Errorf("the git repository of %s: %w", r.Root, err)
	}
	if one := c.Remotes[name]; one != nil && len(one.URLs) > 0 {
		return one.URLs[0], nil
	}
	return "", fmt.Errorf("the git repository of %s has no remote %q", r.Root, name)
}

// Head is the commit that is checked out, on a branch or detached; "": nothing
// is committed yet.
func (r *Repo) Head() (string, error) {
	hash, err := r.ref("HEAD")
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read HEAD of %s: %w", r.Root, err)
	}
	return hash.String(), nil
}

// explain says what to do about an object that is not there.
func (r *Repo) explain(err error) error {
	if !errors.Is(err, plumbing.ErrObjectNotFound) {
		return err
	}
	if r.shallow {
		return fmt.Errorf("%w: the clone is shallow, and doesn't reach so far back; git fetch --unshallow (in CI: fetch with depth 0) brings the rest", ErrMissing)
	}
	return fmt.Errorf("%w: the clone is a partial one, or damaged; git fetch --refetch --no-filter brings what is missing, git fsck tells", ErrMissing)
}
