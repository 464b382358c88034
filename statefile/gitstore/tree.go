package gitstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/remote"
)

// form is clusterplan.json: which form the tree has.
type form struct {
	Version int    `json:"clusterplan_state"`
	Lineage string `json:"lineage"`
	Write   string `json:"write"` // of this commit alone: no two are the same
}

const formVersion = 1

const (
	nameForm    = "clusterplan.json"
	nameJournal = "journal"
	nameLock    = "lock"
	nameState   = "state"
)

// tip is what a ref is at.
type tip struct {
	commit plumbing.Hash       // zero: there is no such ref
	lock   *statefile.LockInfo // nil: nobody's
	image  *remote.Image       // nil: nothing was written yet
	pieces []piece             // of the journal, in order
	state  plumbing.Hash
}

// piece is a part of the journal.
type piece struct {
	hash plumbing.Hash
	end  int // of it in the journal
}

// read reads what a commit has.
func readTip(from storer.EncodedObjectStorer, commit plumbing.Hash) (*tip, error) {
	t, err := decode(from, commit)
	if err != nil && !errors.Is(err, statefile.ErrNewer) {
		return nil, fmt.Errorf("%w: the commit %s is not one that clusterplan wrote (%v); name another ref, or push an earlier commit to it", statefile.ErrDamaged, commit, err)
	}
	return t, err
}

func decode(from storer.EncodedObjectStorer, commit plumbing.Hash) (*tip, error) {
	c, err := object.GetCommit(from, commit)
	if err != nil {
		return nil, err
	}
	tree, err := c.Tree()
	if err != nil {
		return nil, err
	}
	// What a tree names and nobody has is not as if it did not name it: without
	// its lock the state would be anybody's.
	file := func(in *object.Tree, name string) ([]byte, plumbing.Hash, error) {
		e := entry(in, name)
		if e == nil {
			return nil, plumbing.ZeroHash, nil
		}
		b, err := object.GetBlob(from, e.Hash)
		if err != nil {
			return nil, plumbing.ZeroHash, fmt.Errorf("its %s: %w", name, err)
		}
		r, err := b.Reader()
		if err != nil {
			return nil, plumbing.ZeroHash, err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		return data, e.Hash, err
	}
	var is form
	text, _, err := file(tree, nameForm)
	if err == nil {
		err = json.Unmarshal(text, &is)
	}
	switch {
	case err != nil || is.Version < 1:
		return nil, errors.New("it has no " + nameForm + " that can be read")
	case is.Version > formVersion:
		return nil, fmt.Errorf("%w: it was pushed in version %d, this program reads %d; use the clusterplan that wrote it, or a newer one", statefile.ErrNewer, is.Version, formVersion)
	}
	t := &tip{commit: commit}
	if text, _, err = file(tree, nameLock); err != nil {
		return nil, err
	}
	if text != nil {
		t.lock = new(statefile.LockInfo)
		if err := json.Unmarshal(text, t.lock); err != nil || t.lock.ID == "" {
			return nil, errors.New("its lock can't be read")
		}
		h := t.lock
		h.ID, h.Who, h.What, h.Host = remote.Tame(h.ID), remote.Tame(h.Who), remote.Tame(h.What), remote.Tame(h.Host)
	}
	if is.Lineage == "" {
		return t, nil
	}
	t.image = &remote.Image{Lineage: is.Lineage}
	if t.image.State, t.state, err = file(tree, nameState); err != nil {
		return nil, err
	}
	journal := entry(tree, nameJournal)
	if journal == nil {
		return t, nil
	}
	pieces, err := object.GetTree(from, journal.Hash)
	if err != nil {
		return nil, fmt.Errorf("its %s: %w", nameJournal, err)
	}
	for i, e := range pieces.Entries {
		if e.Name != pieceName(i) {
			return nil, fmt.Errorf("its journal has %q, where %s should be", e.Name, pieceName(i))
		}
		data, hash, err := file(pieces, e.Name)
		if err != nil {
			return nil, err
		}
		t.image.Journal = append(t.image.Journal, data...)
		t.pieces = append(t.pieces, piece{hash, len(t.image.Journal)})
	}
	return t, nil
}

// entry is what a tree has under a name; nil: nothing.
func entry(in *object.Tree, name string) *object.TreeEntry {
	i := slices.IndexFunc(in.Entries, func(e object.TreeEntry) bool { return e.Name == name })
	if i < 0 {
		return nil
	}
	return &in.Entries[i]
}

func pieceName(i int) string { return fmt.Sprintf("%06d", i+1) }

// change is a commit that is to be pushed on top of another.
type change struct {
	to   *tip
	pack []byte // what is not there yet
	sent bool   // it may be on its way, or there
}

// next is t with another image and lock, as a commit of who. What is there already
// is not sent again: the state, and the journal so far.
func (t *tip) next(i *remote.Image, lock *statefile.LockInfo, who, message string) (*change, error) {
	objects := memory.NewStorage()
	var made []plumbing.Hash
	add := func(kind plumbing.ObjectType, encode func(plumbing.EncodedObject) error) (plumbing.Hash, error) {
		o := objects.NewEncodedObject()
		o.SetType(kind)
		if err := encode(o); err != nil {
			return plumbing.ZeroHash, err
		}
		h, err := objects.SetEncodedObject(o)
		made = append(made, h)
		return h, err
	}
	blob := func(data []byte) (plumbing.Hash, error) {
		return add(plumbing.BlobObject, func(o plumbing.EncodedObject) error {
			w, err := o.Writer()
			if err != nil {
				return err
			}
			_, err = w.Write(data)
			return errors.Join(err, w.Close())
		})
	}
	to := &tip{lock: lock, image: i}
	var root object.Tree
	put := func(name string, mode filemode.FileMode, h plumbing.Hash) {
		root.Entries = append(root.Entries, object.TreeEntry{Name: name, Mode: mode, Hash: h})
	}
	is := form{Version: formVersion, Write: remote.NewID()}
	if i != nil {
		is.Lineage = i.Lineage
	}
	text, err := json.Marshal(is)
	if err != nil {
		return nil, err
	}
	h, err := blob(append(text, '\n'))
	if err != nil {
		return nil, err
	}
	put(nameForm, filemode.Regular, h)
	if i != nil && len(i.Journal) > 0 {
		if t.image != nil && len(t.pieces) > 0 && bytes.HasPrefix(i.Journal, t.image.Journal) {
			to.pieces = append(to.pieces, t.pieces...)
		}
		from := 0
		if n := len(to.pieces); n > 0 {
			from = to.pieces[n-1].end
		}
		if from < len(i.Journal) {
			if h, err = blob(i.Journal[from:]); err != nil {
				return nil, err
			}
			to.pieces = append(to.pieces, piece{h, len(i.Journal)})
		}
		var tree object.Tree
		for n, one := range to.pieces {
			tree.Entries = append(tree.Entries, object.TreeEntry{Name: pieceName(n), Mode: filemode.Regular, Hash: one.hash})
		}
		if h, err = add(plumbing.TreeObject, tree.Encode); err != nil {
			return nil, err
		}
		put(nameJournal, filemode.Dir, h)
	}
	if lock != nil {
		if text, err = json.Marshal(lock); err != nil {
			return nil, err
		}
		if h, err = blob(append(text, '\n')); err != nil {
			return nil, err
		}
		put(nameLock, filemode.Regular, h)
	}
	if i != nil && len(i.State) > 0 {
		to.state = t.state
		if t.image == nil || !bytes.Equal(i.State, t.image.State) {
			if to.state, err = blob(i.State); err != nil {
				return nil, err
			}
		}
		put(nameState, filemode.Regular, to.state)
	}
	if h, err = add(plumbing.TreeObject, root.Encode); err != nil {
		return nil, err
	}
	by := object.Signature{Name: remote.Tame(who), Email: "clusterplan", When: time.Now()}
	c := object.Commit{Author: by, Committer: by, Message: message + "\n", TreeHash: h}
	if !t.commit.IsZero() {
		c.ParentHashes = []plumbing.Hash{t.commit}
	}
	if to.commit, err = add(plumbing.CommitObject, c.Encode); err != nil {
		return nil, err
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, objects, false).Encode(made, 0); err != nil {
		return nil, err
	}
	return &change{to: to, pack: pack.Bytes()}, nil
}
