package confdb_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

func kvWrite(t *rapid.T, s *confdb.State, group string, epoch uint64) *confdb.KVWrite {
	w := &confdb.KVWrite{Key: fmt.Sprint("k", rapid.IntRange(1, 3).Draw(t, "key")), Delete: rapid.IntRange(0, 3).Draw(t, "delete") == 0}
	if rapid.Bool().Draw(t, "of the group") {
		w.Space = group
		w.Epoch = rapid.SampledFrom([]uint64{0, epoch, epoch, epoch + 7}).Draw(t, "kv epoch")
	}
	if !w.Delete {
		w.Value = rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "value")
	}
	now, _ := s.KV.Lookup(w.Space, w.Key)
	switch rapid.IntRange(0, 3).Draw(t, "if") {
	case 0:
		w.If = new(uint64)
	case 1:
		w.If = &now.Revision
	case 2:
		w.Seen = s.Revision
	}
	return w
}

// applicationInvariants: what is counted is what is there, keys are in order, and
// every chunk is somebody's.
func applicationInvariants(t *rapid.T, s *confdb.State) {
	var size int64
	for space, sp := range s.KV.Spaces {
		if space != confdb.ClusterSpace && s.Groups[space] == nil {
			t.Fatalf("keys of %s, which is gone", space)
		}
		if len(sp.Keys) != len(sp.Entries) || len(sp.Keys) == 0 || !slices.IsSorted(sp.Keys) {
			t.Fatalf("space %q: keys %q of %d entries", space, sp.Keys, len(sp.Entries))
		}
		for _, k := range sp.Keys {
			e := sp.Entries[k]
			size += int64(len(k) + len(e.Value) + confdb.KVOverhead)
			if e.Created > e.Revision || e.Revision > s.Revision || e.Created == 0 {
				t.Fatalf("%q: made at %d, written at %d, now %d", k, e.Created, e.Revision, s.Revision)
			}
		}
	}
	if size != s.KV.Bytes {
		t.Fatalf("%d bytes are counted, %d are there", s.KV.Bytes, size)
	}
	used := map[string]bool{}
	for id, g := range s.Groups {
		for name, cp := range g.Checkpoints {
			if cp.Epoch > g.Owner.Epoch {
				t.Fatalf("checkpoint of %s in %s is of epoch %d, the group is at %d", name, id, cp.Epoch, g.Owner.Epoch)
			}
			for _, f := range cp.Files {
				for _, h := range f.Chunks {
					used[h] = true
					if s.Chunks[h] == nil {
						t.Fatalf("checkpoint of %s in %s lacks a chunk", name, id)
					}
				}
			}
		}
	}
	for h, c := range s.Chunks {
		group, _, _ := strings.Cut(c.Owner, "/")
		switch g := s.Groups[group]; {
		case c.Owner == "" && !used[h]:
			t.Fatalf("chunk %s is nobody's", h)
		case c.Owner != "" && (g == nil || g.Owner.Epoch != c.Epoch) && !used[h]:
			t.Fatalf("chunk %s is of an upload that is over: %s under %d", h, c.Owner, c.Epoch)
		}
	}
}

func owned(t *testing.T) *confdb.State {
	t.Helper()
	s, _ := base(t)
	g := spec.Group{ID: "gk", Name: "keeper", Addr: addr.Group("keeper", addr.NoKey), PersistentState: spec.WantOnline}
	g.Resources = []spec.Resource{{Name: "app", Type: "generic_application", Addr: g.Addr.WithResource("app", addr.NoKey), Checkpoint: &spec.Checkpoint{Paths: []string{"/f"}}}}
	apply := func(c confdb.Command) {
		c.ID, c.Time = fmt.Sprint("owned", s.Revision), start
		if r := s.Apply(c); r.Code != "" {
			t.Fatal(r)
		}
	}
	apply(confdb.Command{PutGroup: &g})
	apply(confdb.Command{Assign: &confdb.Assign{Group: "gk", Node: "n1"}})
	return s
}

func do(s *confdb.State, c confdb.Command) string {
	c.ID, c.Time = fmt.Sprint("do", s.Revision), start
	return s.Apply(c).Code
}

func TestKVLimits(t *testing.T) {
	s := owned(t)
	put := func(key string, n int) string {
		return do(s, confdb.Command{KV: &confdb.KVWrite{Key: key, Value: make([]byte, n)}})
	}
	if put("k", confdb.MaxValue) != "" || put("k", confdb.MaxValue+1) != confdb.CodeLimit || put("", 1) != confdb.CodeInvalid || put(strings.Repeat("k", confdb.MaxKey+1), 1) != confdb.CodeInvalid {
		t.Error("the limits of one key")
	}
	n := 0
	for put(fmt.Sprint("fill", n), confdb.MaxValue) == "" {
		n++
	}
	if s.KV.Bytes > confdb.MaxKV || s.KV.Bytes < confdb.MaxKV-confdb.MaxValue-1024 {
		t.Errorf("%d bytes fit", s.KV.Bytes)
	}
	if put("fill0", confdb.MaxValue) != "" || put("fill0", 1) != "" || put("new", 1) != "" {
		t.Error("what takes no more room was refused")
	}
	begun := time.Now()
	data := encode(t, s)
	t.Logf("a snapshot of %d bytes took %v", len(data), time.Since(begun))
	begun = time.Now()
	again, err := confdb.Decode(data)
	if err != nil || !bytes.Equal(encode(t, again), data) {
		t.Fatalf("a full store doesn't read back: %v", err)
	}
	t.Logf("and read %v", time.Since(begun))
	for _, cut := range []int{1, 100, len(data) / 2} {
		if _, err := confdb.Decode(data[:len(data)-cut]); err == nil {
			t.Errorf("a snapshot without its last %d bytes was read", cut)
		}
	}
	if _, err := confdb.Decode(append(slices.Clone(data), 0)); err == nil {
		t.Error("a snapshot with a byte more was read")
	}
}

// A write that is tried again so late that nobody knows whether it was done is
// refused, and one that is tried again in time is done once.
// To remove a group with many keys is one update, and every lease waits for it on
// every node at once: it takes far less than to write them. In processor time,
// which other work on the machine doesn't change.
func TestManyKeysGoAtOnce(t *testing.T) {
	s := owned(t)
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin := used()
	const n = 60_000
	for i := range n {
		s.Apply(confdb.Command{ID: fmt.Sprint("k", i), KV: &confdb.KVWrite{Space: "gk", Key: fmt.Sprintf("%06d", i)}})
	}
	do(s, confdb.Command{DeleteGroup: &confdb.GroupRef{Group: "gk"}})
	written := used()
	if do(s, confdb.Command{Assign: &confdb.Assign{Group: "gk", From: 1}}) != "" || s.Groups["gk"] != nil || s.KV.Bytes != 0 || len(s.KV.Spaces) != 0 {
		t.Fatalf("the group is there, or %d bytes of its keys", s.KV.Bytes)
	}
	if gone := used() - written; gone > (written-begin)/2 {
		t.Errorf("%d keys were written in %v and removed in %v", n, written-begin, gone)
	}
	// A watch from before is told that it can't go on, one from here that it can.
	if _, ok := s.KV.Since("gk", "", s.Revision-1); ok {
		t.Error("more changes than are kept, and a watch goes on")
	}
	if list, ok := s.KV.Since("gk", "", s.Revision); !ok || len(list) != 0 {
		t.Errorf("%d changes after the newest, %v", len(list), ok)
	}
}

func TestLateRetries(t *testing.T) {
	s := owned(t)
	write := confdb.Command{ID: "w", Time: start, KV: &confdb.KVWrite{Key: "k", Value: []byte("1"), Seen: s.Revision}}
	first := s.Apply(write)
	for i := range 4900 {
		s.Apply(confdb.Command{ID: fmt.Sprint("other", i), Time: start, KV: &confdb.KVWrite{Key: "k", Value: []byte("2")}})
	}
	for range 6000 {
		s.Apply(confdb.Command{ID: "barrier", Time: start, Nothing: true})
	}
	if again := s.Apply(write); again != first {
		t.Errorf("again: %+v, first: %+v", again, first)
	}
	for i := range 200 {
		s.Apply(confdb.Command{ID: fmt.Sprint("more", i), Time: start, KV: &confdb.KVWrite{Key: "k", Value: []byte("3")}})
	}
	if late := s.Apply(write); late.Code != confdb.CodeStale {
		t.Errorf("late: %+v", late)
	}
	if e, _ := s.KV.Lookup("", "k"); string(e.Value) != "3" {
		t.Errorf("an old value came back: %q", e.Value)
	}
}

func TestCheckpointLimitsAndUploads(t *testing.T) {
	s := owned(t)
	chunk := func(i, n int) []byte { return append(fmt.Appendf(nil, "%08d", i), make([]byte, n-8)...) }
	put := func(epoch uint64, data []byte) string {
		return do(s, confdb.Command{PutChunk: &confdb.PutChunk{Group: "gk", Resource: "app", Epoch: epoch, Data: data}})
	}
	keep := func(epoch uint64, files ...confdb.CheckpointFile) string {
		return do(s, confdb.Command{PutCheckpoint: &confdb.PutCheckpoint{Group: "gk", Resource: "app", Epoch: epoch, Files: files}})
	}
	file := func(path string, data []byte) confdb.CheckpointFile {
		return confdb.CheckpointFile{Path: path, Size: int64(len(data)), Chunks: []string{confdb.ChunkHash(data)}}
	}
	a := chunk(1, 100)
	if put(1, chunk(0, confdb.MaxChunk+1)) != confdb.CodeLimit || put(0, a) != confdb.CodeInvalid || put(2, a) != confdb.CodeFenced {
		t.Error("chunks that are too large, or nobody's")
	}
	if keep(1, file("/f", a)) != confdb.CodeInvalid {
		t.Error("a checkpoint without its chunk was taken")
	}
	if put(1, a) != "" || keep(1, file("/f", a)) != "" || keep(1, file("../f", a)) != confdb.CodeInvalid || keep(1, file("/f", a), file("/f", a)) != confdb.CodeInvalid {
		t.Error("paths")
	}
	large := confdb.CheckpointFile{Path: "/f"}
	for full := chunk(2, confdb.MaxChunk); large.Size <= confdb.MaxCheckpoint; large.Size += confdb.MaxChunk {
		if put(1, full) != "" { // the same again and again takes the room of one, here
			t.Fatal("a chunk is refused")
		}
		large.Chunks = append(large.Chunks, confdb.ChunkHash(full))
	}
	if r := keep(1, large); r != confdb.CodeLimit {
		t.Errorf("a checkpoint of %d bytes: %q", large.Size, r)
	}
	if keep(1, file("/f", a)) != "" || len(s.Chunks) != 1 {
		t.Errorf("%d chunks after that", len(s.Chunks))
	}
	// Uploads that came to nothing give way to the next: a file that changed while
	// it was sent doesn't keep the resource from having a checkpoint.
	const most = confdb.MaxCheckpoint / confdb.MaxChunk
	for round := range 3 {
		var f confdb.CheckpointFile
		for try := 0; f.Size == 0 && try < 3; try++ { // what gave way is sent again
			want := confdb.CheckpointFile{Path: "/f"}
			for i := range most - 10 {
				data := chunk(1000*round+i, confdb.MaxChunk)
				if put(1, data) != "" {
					t.Fatalf("round %d: chunk %d was refused", round, i)
				}
				want.Size += int64(len(data))
				want.Chunks = append(want.Chunks, confdb.ChunkHash(data))
			}
			if n := len(s.Chunks) - 1; n > most { // a's is kept
				t.Fatalf("round %d: %d chunks are there", round, n)
			}
			if !slices.ContainsFunc(want.Chunks, func(h string) bool { return s.Chunks[h] == nil }) {
				f = want
			}
		}
		if f.Size == 0 {
			t.Fatalf("round %d: the chunks never were there together", round)
		}
		if round == 2 && (keep(1, f) != "" || len(s.Chunks) != most-10) {
			t.Errorf("a checkpoint after uploads that came to nothing is refused, or they are left: %d chunks", len(s.Chunks))
		}
	}
	if put(1, a) != "" || keep(1, file("/f", a)) != "" || len(s.Chunks) != 1 {
		t.Errorf("%d chunks after a smaller checkpoint", len(s.Chunks))
	}
	for i := range confdb.MaxCheckpoints / confdb.MaxChunk { // of others
		s.Chunks[fmt.Sprint(i)] = &confdb.Chunk{Owner: "gx/r", Data: make([]byte, confdb.MaxChunk)}
	}
	if put(1, chunk(3, 100)) != confdb.CodeLimit {
		t.Error("more than all may have")
	}
	maps.DeleteFunc(s.Chunks, func(_ string, c *confdb.Chunk) bool { return c.Owner == "gx/r" })
	if put(1, chunk(3, 100)) != "" {
		t.Error("room was made, and a chunk is refused")
	}
	// A new owner ends the upload; the checkpoint stays.
	if do(s, confdb.Command{Assign: &confdb.Assign{Group: "gk", From: 1, Node: "n2"}}) != "" {
		t.Fatal("no new owner")
	}
	if len(s.Chunks) != 1 || s.Groups["gk"].Checkpoints["app"] == nil {
		t.Errorf("%d chunks are left", len(s.Chunks))
	}
	if keep(1, file("/f", a)) != confdb.CodeFenced {
		t.Error("a former owner's checkpoint was taken")
	}
	// What is replaced is swept; without the block, all of it.
	b := chunk(2, 100)
	if put(2, b) != "" || keep(2, file("/f", b)) != "" || len(s.Chunks) != 1 {
		t.Errorf("%d chunks after a second checkpoint", len(s.Chunks))
	}
	g := s.Groups["gk"].Spec
	g.Resources = slices.Clone(g.Resources)
	g.Resources[0].Checkpoint = nil
	if do(s, confdb.Command{PutGroup: &g}) != "" || len(s.Chunks) != 0 || len(s.Groups["gk"].Checkpoints) != 0 {
		t.Errorf("%d chunks are left of a checkpoint that is defined no more", len(s.Chunks))
	}
}

func FuzzSnapshot(f *testing.F) {
	s := confdb.NewState()
	f.Add(encode(f, s))
	s.Apply(confdb.Command{ID: "a", KV: &confdb.KVWrite{Key: "k", Value: []byte("v")}})
	s.Apply(confdb.Command{ID: "b", KV: &confdb.KVWrite{Key: "l", Value: []byte{0, '\n'}}})
	s.Apply(confdb.Command{ID: "c", KV: &confdb.KVWrite{Key: "k", Delete: true}})
	f.Add(encode(f, s))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := confdb.Decode(data)
		if err != nil {
			return
		}
		once := encode(t, s)
		again, err := confdb.Decode(once)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once, encode(t, again)) {
			t.Fatal("a snapshot reads back as another state")
		}
	})
}
