package gitmodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/internal/revision"
)

// Fetcher gets modules from git: it asks their repositories, fills the cache and
// writes the lock file. It is for one run of init, and one goroutine.
type Fetcher struct {
	Dir  string // the root's directory
	Lock *Lock
	// Upgrade takes refs anew. Fixed: what is not locked is an error (the lock file
	// is a revision's, and stays as it is).
	Upgrade, Fixed bool
	// Prepare makes the directory that the cache lies in.
	Prepare func() error

	used   []Locked
	failed map[Source]error // by repository and ref
	repos  map[string]repository
	swept  *os.File // the cache's lock, once it is held
	said   []string
}

// Said is what there is to tell, in the order in which it happened.
func (f *Fetcher) Said() []string { return f.said }

// Get makes sure that a source is locked and cached. Its error says what to do.
func (f *Fetcher) Get(ctx context.Context, s Source) (Locked, error) {
	whole := Source{URL: s.URL, Ref: s.Ref}
	for _, one := range f.used {
		if one.URL == s.URL && one.Ref == s.Ref {
			return one, nil
		}
	}
	if err := f.failed[whole]; err != nil {
		return Locked{}, err
	}
	one, err := f.get(ctx, s)
	if err != nil {
		if f.failed == nil {
			f.failed = map[Source]error{}
		}
		f.failed[whole] = err
		return Locked{}, err
	}
	f.used = append(f.used, one)
	return one, nil
}

func (f *Fetcher) get(ctx context.Context, s Source) (Locked, error) {
	known := f.Lock.find(s.URL, s.Ref)
	one := Locked{URL: s.URL, Ref: s.Ref}
	switch {
	case known != nil && !f.Upgrade:
		one = *known
	case f.Fixed:
		_, err := f.Lock.Find(s)
		return one, fmt.Errorf("%w. It is the lock file of a revision: one that doesn't have its modules can't be planned", err)
	case commitName.MatchString(s.Ref):
		one.Commit = s.Ref
	default:
		now, err := f.resolve(ctx, s)
		if err != nil {
			return one, err
		}
		one.Commit = now
	}
	switch {
	case known == nil:
		f.said = append(f.said, fmt.Sprintf("Locked %s at commit %s.", s, short(one.Commit)))
	case known.Commit != one.Commit:
		f.said = append(f.said, fmt.Sprintf("Upgraded %s from commit %s to %s.", s, short(known.Commit), short(one.Commit)))
	case f.Upgrade:
		f.said = append(f.said, fmt.Sprintf("%s is at commit %s, as it was locked.", s, short(one.Commit)))
	}
	switch _, err := os.Stat(filepath.Join(f.Dir, filepath.FromSlash(one.Cache()))); {
	case err == nil:
		return one, nil
	case !errors.Is(err, fs.ErrNotExist):
		return one, f.cannot(err)
	}
	if err := f.fetch(ctx, s, one, known); err != nil {
		return one, err
	}
	return one, nil
}

func (f *Fetcher) repository(s Source) (repository, error) {
	if r := f.repos[s.URL]; r != nil {
		return r, nil
	}
	r, err := open(s)
	if err != nil {
		return nil, err
	}
	if f.repos == nil {
		f.repos = map[string]repository{}
	}
	f.repos[s.URL] = r
	return r, nil
}

// resolve is the commit that a ref is today.
func (f *Fetcher) resolve(ctx context.Context, s Source) (string, error) {
	r, err := f.repository(s)
	if err != nil {
		return "", err
	}
	refs, err := r.refs(ctx)
	if err != nil {
		return "", err
	}
	if commit := at(refs, s.Ref); commit != "" {
		return commit, nil
	}
	if s.Ref == "" {
		return "", fmt.Errorf("the HEAD of %s names no commit. Say which branch or tag is meant, with ?ref=NAME", s.URL)
	}
	var names []string
	for name := range refs {
		for _, kind := range []string{"refs/tags/", "refs/heads/"} {
			if rest, ok := strings.CutPrefix(name, kind); ok && !strings.HasSuffix(name, peeled) {
				names = append(names, rest)
			}
		}
	}
	slices.Sort(names)
	has := "It has neither tags nor branches"
	if n := len(names); n > 0 {
		if n > 10 {
			names = append(names[:10], fmt.Sprintf("and %d more", n-10))
		}
		has = "It has " + strings.Join(names, ", ")
	}
	return "", fmt.Errorf("%s has no tag and no branch %s. %s. A commit is named by all of its 40 digits", s.URL, s.Ref, has)
}

// at finds what a ref stands for, in git's order; "": nothing.
func at(refs map[string]string, ref string) string {
	names := []string{"refs/tags/" + ref, "refs/heads/" + ref}
	switch {
	case ref == "":
		names = []string{"HEAD"}
	case strings.HasPrefix(ref, "refs/"):
		names = []string{ref}
	}
	for _, name := range names {
		if hash := refs[name+peeled]; hash != "" {
			return hash
		}
		if hash := refs[name]; hash != "" {
			return hash
		}
	}
	return ""
}

// cannot is the error of a directory that can't be written.
func (f *Fetcher) cannot(err error) error {
	return fmt.Errorf("modules from git are kept in %s, which can't be written: %w. Let clusterplan init write there, or run it where it can, and copy the directory and the lock file", filepath.Join(f.Dir, filepath.FromSlash(CacheDir)), err)
}

// Limits of what a commit's tree may have: a few objects can name one another to
// a tree without end.
const (
	maxFiles = 100_000
	maxBytes = 1 << 30
)

// fetch puts a commit's tree into the cache: aside, and renamed when it is whole
// and on the disk.
func (f *Fetcher) fetch(ctx context.Context, s Source, one Locked, known *Locked) (err error) {
	r, err := f.repository(s)
	if err != nil {
		return err
	}
	if err := f.sweep(); err != nil {
		return err
	}
	base := filepath.Join(f.Dir, filepath.FromSlash(CacheDir))
	scratch, err := os.MkdirTemp(base, atomicfile.Prefix)
	if err != nil {
		return f.cannot(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	tree, err := r.tree(ctx, one.Commit, scratch)
	if errors.Is(err, errGone) {
		return f.gone(ctx, r, s, one, known)
	}
	if err != nil {
		return err
	}
	switch info, err := tree.Stat(s.Dir); {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir():
		return Missing(s, one, true)
	case err != nil:
		return fmt.Errorf("commit %s of %s: %w. Name another directory, or another ref", short(one.Commit), s.URL, err)
	}
	at := filepath.Join(scratch, "tree")
	left, err := write(ctx, tree, at)
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			return f.cannot(err)
		}
		return fmt.Errorf("commit %s of %s: %w", short(one.Commit), s.URL, err)
	}
	to := filepath.Join(f.Dir, filepath.FromSlash(one.Cache()))
	if err := os.Rename(at, to); err != nil {
		return f.cannot(err)
	}
	if err := atomicfile.SyncDir(base); err != nil {
		return f.cannot(err)
	}
	f.said = append(f.said, fmt.Sprintf("Fetched commit %s of %s.", short(one.Commit), s.URL))
	for _, name := range left {
		f.said = append(f.said, fmt.Sprintf("Note: %s of %s is not fetched: its content lies elsewhere (a submodule, or a file of Git LFS). A module can't use it.", name, s.URL))
	}
	return nil
}

// gone is the error of a commit that its repository hasn't any more.
func (f *Fetcher) gone(ctx context.Context, r repository, s Source, one Locked, known *Locked) error {
	if known == nil {
		return fmt.Errorf("%s has no commit %s that one of its branches or tags leads to. Name another", s.URL, short(one.Commit))
	}
	now := "the ref is gone too: name another"
	if refs, err := r.refs(ctx); err == nil {
		switch commit := at(refs, s.Ref); {
		case commitName.MatchString(s.Ref):
			now = "name another commit"
		case commit != "":
			now = fmt.Sprintf("the ref is at commit %s now, and clusterplan init --upgrade takes that", short(commit))
		}
	}
	return fmt.Errorf("the lock file %s, line %d, has %s at commit %s, and the repository does not have that any more: somebody rewrote its history. Have it pushed again, or copy %s from where it is; or %s",
		f.Lock.Name, one.Line, s, short(one.Commit), one.Cache(), now)
}

// sweep takes the cache's lock, for one init at a time, and removes what killed
// ones have left.
func (f *Fetcher) sweep() error {
	if f.swept != nil {
		return nil
	}
	if err := f.Prepare(); err != nil {
		return f.cannot(err)
	}
	base := filepath.Join(f.Dir, filepath.FromSlash(CacheDir))
	if err := os.MkdirAll(base, 0o755); err != nil {
		return f.cannot(err)
	}
	lock, err := os.OpenFile(filepath.Join(base, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return f.cannot(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("another clusterplan init fetches modules into %s. Wait for its end, and run clusterplan init again", base)
		}
		return f.cannot(err)
	}
	f.swept = lock
	entries, err := os.ReadDir(base)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), atomicfile.Prefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(base, e.Name())))
		}
	}
	if err != nil {
		return f.cannot(err)
	}
	return nil
}

// Close lets others fetch.
func (f *Fetcher) Close() error {
	if f.swept == nil {
		return nil
	}
	err := f.swept.Close()
	f.swept = nil
	return err
}

// Save writes the lock file, if it says something else now. all: the definition
// was read whole, so that what it doesn't name is not needed any more.
func (f *Fetcher) Save(all bool) error {
	if f.Fixed {
		return nil
	}
	next := &Lock{Name: f.Lock.Name, list: slices.Clone(f.used)}
	for _, old := range f.Lock.list {
		if next.find(old.URL, old.Ref) != nil {
			continue
		}
		if !all {
			next.list = append(next.list, old)
			continue
		}
		f.said = append(f.said, fmt.Sprintf("%s is not used any more, and not locked.", old))
	}
	if len(next.list) == 0 && len(f.Lock.list) == 0 {
		return nil
	}
	name := filepath.Join(f.Dir, LockName)
	data := next.Bytes()
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := atomicfile.Write(name, data, 0o644); err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	return nil
}

// write puts a commit's tree into a new directory, and everything on the disk.
// It says what has no content of its own.
func write(ctx context.Context, tree *revision.Tree, dir string) (left []string, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir) // whatever the names and links say, nothing is written elsewhere
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, size := 0, int64(0)
	more := func(n int64) error {
		if files, size = files+1, size+n; files > maxFiles || size > maxBytes {
			return fmt.Errorf("it has more than %d files, or %d MiB; modules have to be in a smaller repository", maxFiles, maxBytes>>20)
		}
		return ctx.Err()
	}
	err = tree.Walk(func(name string) error {
		if name == "." {
			return nil
		}
		if err := more(0); err != nil {
			return err
		}
		return root.Mkdir(name, 0o755)
	}, func(l revision.Leaf) error {
		if l.Mode == fs.ModeIrregular {
			left = append(left, l.Path)
			return more(0)
		}
		if err := more(l.Size()); err != nil {
			return err
		}
		data, err := l.Read()
		if err != nil {
			return err
		}
		if l.Mode&fs.ModeSymlink != 0 {
			return root.Symlink(string(data), l.Path)
		}
		if bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/spec/")) {
			left = append(left, l.Path)
			return nil
		}
		return root.WriteFile(l.Path, data, l.Mode)
	})
	if err != nil {
		return nil, err
	}
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return nil, &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	slices.Sort(left)
	return left, nil
}

// Inside tells whether a module's directory, from the root's, lies in the same
// cached commit as that of the module which calls it, if that is from git.
func Inside(from, dir string) bool {
	home := CacheOf(from)
	return home == "" || dir == home || strings.HasPrefix(path.Clean(dir), home+"/")
}
