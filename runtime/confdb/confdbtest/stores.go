package confdbtest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Store is what keeps a driver's Persists.
type Store interface {
	ServerID() uint64
	Load() (confdb.Stored, error)
	Write(confdb.Persist) error
	Close() error
}

// Stores is what any store has to do: it means the same as Stored.Write, also
// across closing and opening, and its server id belongs to its directory.
func Stores(t *testing.T, open func(dir string) (Store, error)) {
	t.Run("means what Persist means", func(t *testing.T) {
		dirs := 0
		root := t.TempDir()
		rapid.Check(t, func(rt *rapid.T) {
			dirs++
			dir := fmt.Sprint(root, "/", dirs)
			s, err := open(dir)
			if err != nil {
				rt.Fatal(err)
			}
			id := s.ServerID()
			var want confdb.Stored
			for range rapid.IntRange(1, 12).Draw(rt, "writes") {
				p := persist(rt, want)
				want.Write(p)
				if err := s.Write(p); err != nil {
					rt.Fatal(err)
				}
				if rapid.IntRange(0, 3).Draw(rt, "reopen") == 0 {
					if err := s.Close(); err != nil {
						rt.Fatal(err)
					}
					if s, err = open(dir); err != nil {
						rt.Fatal(err)
					}
				}
			}
			got, err := s.Load()
			if err != nil {
				rt.Fatal(err)
			}
			if d := cmp.Diff(normal(want), normal(got)); d != "" {
				rt.Fatal(d)
			}
			if s.ServerID() != id {
				rt.Fatalf("the server id changed from %d to %d", id, s.ServerID())
			}
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
		})
	})

	t.Run("a new directory is a new server", func(t *testing.T) {
		seen := map[uint64]bool{0: true}
		for range 5 {
			s, err := open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if seen[s.ServerID()] {
				t.Errorf("server id %d", s.ServerID())
			}
			seen[s.ServerID()] = true
			if st, err := s.Load(); err != nil || st.HardState != nil || st.Snapshot != nil || len(st.Entries) != 0 {
				t.Errorf("a new store holds %+v, %v", st, err)
			}
		}
	})
}

// persist draws a write that a driver could ask for after what is stored.
func persist(t *rapid.T, st confdb.Stored) confdb.Persist {
	data := rapid.SliceOfN(rapid.Byte(), 0, 40)
	var p confdb.Persist
	if rapid.Bool().Draw(t, "hard") {
		p.HardState = append([]byte{1}, data.Draw(t, "hard state")...)
	}
	last := st.SnapshotIndex + uint64(len(st.Entries))
	next := st.SnapshotIndex + 1
	if rapid.IntRange(0, 3).Draw(t, "snapshot") == 0 {
		p.Snapshot = append([]byte{1}, data.Draw(t, "snapshot data")...)
		if p.KeepTail = len(st.Entries) > 0 && rapid.Bool().Draw(t, "keep"); p.KeepTail {
			p.SnapshotIndex = rapid.Uint64Range(next, last).Draw(t, "index")
			next = p.SnapshotIndex + 1
		} else {
			p.SnapshotIndex = last + rapid.Uint64Range(1, 300).Draw(t, "ahead")
			last, next = p.SnapshotIndex, p.SnapshotIndex+1
		}
	}
	first := rapid.Uint64Range(next, last+1).Draw(t, "first")
	for i := range rapid.Uint64Range(0, 5).Draw(t, "entries") {
		p.Entries = append(p.Entries, confdb.LogEntry{Index: first + i, Term: rapid.Uint64().Draw(t, "term"), Data: data.Draw(t, "data")})
	}
	p.Empty = p.HardState == nil && p.Snapshot == nil && len(p.Entries) == 0
	return p
}

// normal makes nil and empty slices equal.
func normal(st confdb.Stored) confdb.Stored {
	st.HardState, st.Snapshot = bytes.Clone(st.HardState), bytes.Clone(st.Snapshot)
	st.Entries = slices.Clone(st.Entries)
	for i := range st.Entries {
		st.Entries[i].Data = append([]byte{}, st.Entries[i].Data...)
	}
	if len(st.Entries) == 0 {
		st.Entries = nil
	}
	return st
}
