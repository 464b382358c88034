package confdb

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// A snapshot is the state's JSON and, where applications keep something here, a
// line feed and then their bytes as they are: megabytes as JSON would be a third
// longer, and slow enough to read that a lease could wait for it. Numbers are
// uvarints, texts and values have their length before them. Equal states give
// equal bytes: all is sorted.
//
//	version = 1
//	compacted, n changes, each: revision, space, key
//	n entries, each: space, key, revision, created, value
//	n chunks, each: hash, owner, epoch, bytes
const blobsVersion = 1

func (s *State) hasBlobs() bool {
	return len(s.KV.Spaces) > 0 || len(s.KV.Changes) > 0 || s.KV.Compacted > 0 || len(s.Chunks) > 0
}

// appendBlobs writes what hasBlobs found.
func (s *State) appendBlobs(b []byte) []byte {
	size := int(s.KV.Bytes) + 64
	for _, c := range s.Chunks {
		size += len(c.Data) + 256
	}
	b = slices.Grow(b, size)
	text := func(v string) {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	number := func(v uint64) { b = binary.AppendUvarint(b, v) }
	b = append(b, '\n')
	number(blobsVersion)
	number(s.KV.Compacted)
	number(uint64(len(s.KV.Changes)))
	for _, c := range s.KV.Changes {
		number(c.Revision)
		text(c.Space)
		text(c.Key)
	}
	n := 0
	for _, sp := range s.KV.Spaces {
		n += len(sp.Keys)
	}
	number(uint64(n))
	for _, space := range slices.Sorted(maps.Keys(s.KV.Spaces)) {
		for _, key := range s.KV.Spaces[space].Keys {
			e := s.KV.Spaces[space].Entries[key]
			text(space)
			text(key)
			number(e.Revision)
			number(e.Created)
			number(uint64(len(e.Value)))
			b = append(b, e.Value...)
		}
	}
	number(uint64(len(s.Chunks)))
	for _, hash := range slices.Sorted(maps.Keys(s.Chunks)) {
		c := s.Chunks[hash]
		text(hash)
		text(c.Owner)
		number(c.Epoch)
		number(uint64(len(c.Data)))
		b = append(b, c.Data...)
	}
	return b
}

var errBlobs = errors.New("what applications keep in it is cut off or damaged")

// readBlobs reads what appendBlobs wrote, after the line feed. It takes nothing
// that appendBlobs would write otherwise.
func (s *State) readBlobs(b []byte) error {
	r := blobReader{b: b}
	if v := r.number(); v != blobsVersion || r.failed {
		return errors.New("what applications keep in it was written by another version of clusterplan")
	}
	s.KV.Compacted = r.number()
	n := r.count()
	last := s.KV.Compacted
	for range n {
		c := KVChange{Revision: r.number(), Space: string(r.bytes()), Key: string(r.bytes())}
		if r.failed || c.Revision < last || len(s.KV.Changes) == maxKVChanges {
			return errBlobs
		}
		last = c.Revision
		s.KV.Changes = append(s.KV.Changes, c)
	}
	lastSpace, lastKey := "", ""
	for range r.count() {
		space, key := string(r.bytes()), string(r.bytes())
		e := KVEntry{Revision: r.number(), Created: r.number(), Value: slices.Clone(r.bytes())}
		if r.failed || space < lastSpace || space == lastSpace && key <= lastKey {
			return errBlobs
		}
		lastSpace, lastKey = space, key
		s.KV.put(space, key, e)
	}
	lastHash := ""
	for range r.count() {
		hash := string(r.bytes())
		c := &Chunk{Owner: string(r.bytes()), Epoch: r.number(), Data: slices.Clone(r.bytes())}
		if r.failed || hash <= lastHash {
			return errBlobs
		}
		lastHash = hash
		if s.Chunks == nil {
			s.Chunks = map[string]*Chunk{}
		}
		s.Chunks[hash] = c
	}
	if r.failed || len(r.b) > 0 {
		return errBlobs
	}
	return nil
}

// blobReader reads numbers and bytes until something is missing.
type blobReader struct {
	b      []byte
	failed bool
}

func (r *blobReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // cut off, or longer than it need be
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is a number of things that take at least a byte each.
func (r *blobReader) count() uint64 {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return 0
	}
	return n
}

func (r *blobReader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}
