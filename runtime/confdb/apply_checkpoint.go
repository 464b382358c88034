package confdb

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// ChunkHash names a chunk.
func ChunkHash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ChunkBytes are the bytes of all chunks.
func (s *State) ChunkBytes() (n int64) {
	for _, c := range s.Chunks {
		n += int64(len(c.Data))
	}
	return n
}

// fenceCheckpoint refuses what doesn't come from the group's owner.
func (s *State) fenceCheckpoint(group, resource string, epoch uint64) Result {
	if epoch == 0 {
		return refuse(CodeInvalid, "a checkpoint needs its owner's epoch")
	}
	if r := s.fence(group, epoch); r.Code != "" {
		return r
	}
	g := s.Groups[group]
	if _, ok := g.Spec.Resource(resource); !ok {
		return refuse(CodeNotFound, "group %s has no resource %q", g.Spec.Name, resource)
	}
	return Result{}
}

// putChunk keeps a chunk until a checkpoint refers to it, or the upload is over:
// by its checkpoint, a newer epoch, or the end of the resource.
func (s *State) putChunk(c Command) Result {
	p := c.PutChunk
	if r := s.fenceCheckpoint(p.Group, p.Resource, p.Epoch); r.Code != "" {
		return r
	}
	if len(p.Data) == 0 || len(p.Data) > MaxChunk {
		return refuse(CodeLimit, "a chunk has 1 to %d bytes, not %d", MaxChunk, len(p.Data))
	}
	hash, owner := ChunkHash(p.Data), p.Group+"/"+p.Resource
	if s.Chunks[hash] != nil {
		return Result{} // referred to, or somebody uploads it: PutCheckpoint looks again
	}
	size, mine := int64(len(p.Data)), int64(0)
	for _, k := range s.Chunks {
		if k.Owner == owner {
			mine += int64(len(k.Data))
		}
	}
	all := s.ChunkBytes() + size
	if over := mine+size > MaxCheckpoint || all > MaxCheckpoints; over && all-mine <= MaxCheckpoints {
		// Uploads that came to nothing (their files changed meanwhile) give way. If
		// it is this one that is too large, its PutCheckpoint says so.
		maps.DeleteFunc(s.Chunks, func(_ string, k *Chunk) bool { return k.Owner == owner })
	} else if over {
		return refuse(CodeLimit, "the checkpoints of all resources would take more than %d MiB; put less into them", MaxCheckpoints>>20)
	}
	if s.Chunks == nil {
		s.Chunks = map[string]*Chunk{}
	}
	s.Chunks[hash] = &Chunk{Owner: owner, Epoch: p.Epoch, Data: p.Data}
	return Result{}
}

func (s *State) putCheckpoint(c Command) Result {
	p := c.PutCheckpoint
	if r := s.fenceCheckpoint(p.Group, p.Resource, p.Epoch); r.Code != "" {
		return r
	}
	if len(p.Files) > MaxCheckpointFiles {
		return refuse(CodeLimit, "a checkpoint of %d files; the most is %d", len(p.Files), MaxCheckpointFiles)
	}
	var size int64
	last := ""
	for i, f := range p.Files {
		if i > 0 && f.Path <= last || f.Path == "" && len(p.Files) > 1 || f.Path != "" && (path.Clean(f.Path) != f.Path || f.Path == "." || strings.HasPrefix(f.Path+"/", "../")) {
			return refuse(CodeInvalid, "the files of a checkpoint are paths in their shortest form, sorted, each once; %q is not", f.Path)
		}
		last = f.Path
		if why := s.checkChunks(f); why != "" {
			return refuse(CodeInvalid, "%s", why)
		}
		if size += f.Size; size > MaxCheckpoint {
			return refuse(CodeLimit, "resource %s of group %s: its checkpoint is larger than %d MiB, the most for one resource; put less into it", p.Resource, s.Groups[p.Group].Spec.Name, MaxCheckpoint>>20)
		}
	}
	g := s.Groups[p.Group]
	next := make(map[string]*Checkpoint, len(g.Checkpoints)+1)
	for name, cp := range g.Checkpoints { // who reads the old map goes on with it
		next[name] = cp
	}
	next[p.Resource] = &Checkpoint{Epoch: p.Epoch, Node: g.Owner.Node, Revision: s.Revision, Time: c.Time, Size: size, Files: p.Files}
	g.Checkpoints = next
	for _, f := range p.Files {
		for _, hash := range f.Chunks {
			s.Chunks[hash] = &Chunk{Data: s.Chunks[hash].Data}
		}
	}
	s.sweepChunks(p.Group + "/" + p.Resource)
	return Result{}
}

// checkChunks says what is wrong with a file's chunks: missing ones, or bytes
// that are not its size.
func (s *State) checkChunks(f CheckpointFile) string {
	var size int64
	for i, hash := range f.Chunks {
		c := s.Chunks[hash]
		if c == nil {
			return fmt.Sprintf("chunk %s of %q is not in the database: upload it first", hash, f.Path)
		}
		if i < len(f.Chunks)-1 && len(c.Data) != MaxChunk {
			return fmt.Sprintf("chunk %d of %q is %d bytes long; all but the last have %d", i+1, f.Path, len(c.Data), MaxChunk)
		}
		size += int64(len(c.Data))
	}
	if size != f.Size {
		return fmt.Sprintf("%q is said to be %d bytes long, its chunks are %d", f.Path, f.Size, size)
	}
	return ""
}

// sweepChunks forgets chunks that no checkpoint refers to and that nobody
// uploads: uploads of the resources in over are over.
func (s *State) sweepChunks(over ...string) {
	if len(s.Chunks) == 0 {
		return
	}
	used := map[string]bool{}
	for _, g := range s.Groups {
		for _, cp := range g.Checkpoints {
			for _, f := range cp.Files {
				for _, hash := range f.Chunks {
					used[hash] = true
				}
			}
		}
	}
	for hash, c := range s.Chunks {
		if !used[hash] && (c.Owner == "" || slices.Contains(over, c.Owner)) {
			delete(s.Chunks, hash)
		}
	}
	if len(s.Chunks) == 0 {
		s.Chunks = nil
	}
}

// endUploads ends what is under way for a group whose epoch or definition changed
// or which is gone, and forgets the checkpoints of resources that are no more.
func (s *State) endUploads(group string) {
	g := s.Groups[group]
	if g != nil && len(g.Checkpoints) > 0 {
		var kept map[string]*Checkpoint
		for name, cp := range g.Checkpoints {
			if r, ok := g.Spec.Resource(name); ok && r.Checkpoint != nil {
				if kept == nil {
					kept = map[string]*Checkpoint{}
				}
				kept[name] = cp
			}
		}
		g.Checkpoints = kept
	}
	if len(s.Chunks) == 0 {
		return
	}
	var over []string
	for _, c := range s.Chunks {
		if len(c.Owner) > len(group) && c.Owner[:len(group)+1] == group+"/" && (g == nil || c.Epoch != g.Owner.Epoch) && !slices.Contains(over, c.Owner) {
			over = append(over, c.Owner)
		}
	}
	s.sweepChunks(over...)
}
