package revision

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// OpenAt opens the repository that dir itself is, bare, or the working tree of.
// ErrNone: it is neither, or not there.
func OpenAt(dir string) (*Repo, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	git, err := gitDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	r, err := open(git)
	if err != nil {
		return nil, err
	}
	r.Root, r.Dir = filepath.Clean(dir), "."
	return r, nil
}

// Refs are the repository's refs by their full names, HEAD among them, with the
// object that each names: a commit, or a tag.
func (r *Repo) Refs() (map[string]string, error) {
	out := map[string]string{}
	list, err := r.store.IterReferences()
	if err != nil {
		return nil, err
	}
	defer list.Close()
	err = list.ForEach(func(ref *plumbing.Reference) error {
		if hash, err := r.ref(ref.Name()); err == nil { // a symbolic one may name nothing
			out[ref.Name().String()] = hash.String()
		}
		return nil
	})
	return out, err
}

// Leaf is what a commit's tree has at a path: no directory.
type Leaf struct {
	Path string // of the repository
	// Mode is that of a regular file, with 0o111 where it is executable, or of a
	// symbolic link; fs.ModeIrregular is a submodule.
	Mode fs.FileMode
	tree *Tree
	hash plumbing.Hash
}

// Read is a file's content, or what a symbolic link says.
func (l *Leaf) Read() ([]byte, error) {
	blob, err := object.GetBlob(l.tree.repo.store, l.hash)
	if err != nil {
		return nil, l.tree.repo.explain(err)
	}
	in, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

// Size is that of Read, known without it.
func (l *Leaf) Size() int64 {
	n, _ := l.tree.repo.store.EncodedObjectSize(l.hash)
	return n
}

// Walk calls f with every directory of the commit, from the repository's root
// down, and then with what is in it. No link is followed.
func (t *Tree) Walk(dir func(name string) error, leaf func(Leaf) error) error {
	return t.walk(t.root, ".", dir, leaf)
}

func (t *Tree) walk(tree *object.Tree, at string, dir func(name string) error, leaf func(Leaf) error) error {
	if err := dir(at); err != nil {
		return err
	}
	for _, e := range tree.Entries {
		name := path.Join(at, e.Name)
		if !fs.ValidPath(e.Name) || e.Name == "." || path.Base(e.Name) != e.Name {
			return fmt.Errorf("the commit is damaged: %s has an entry called %q", at, e.Name)
		}
		l := Leaf{Path: name, tree: t, hash: e.Hash}
		switch e.Mode {
		case filemode.Dir:
			inner, err := object.GetTree(t.repo.store, e.Hash)
			if err != nil {
				return t.repo.explain(err)
			}
			if err := t.walk(inner, name, dir, leaf); err != nil {
				return err
			}
			continue
		case filemode.Submodule:
			l.Mode = fs.ModeIrregular
		case filemode.Symlink:
			l.Mode = fs.ModeSymlink | 0o777
		case filemode.Executable:
			l.Mode = 0o755
		default:
			l.Mode = 0o644
		}
		if err := leaf(l); err != nil {
			return err
		}
	}
	return nil
}
