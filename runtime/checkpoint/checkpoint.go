// Package checkpoint keeps a resource's files, or a command's output, in the
// configuration database when they change while the resource is online, and
// brings them back before it comes online on another node.
//
//	k := checkpoint.New(config)
//	err := k.Restore(ctx)     // before the resource starts: its start waits, and fails with it
//	... k.Look(ctx) ...       // now and then while it is online, and once more when it has stopped
//
// A Keeper is one life of one resource, under one epoch. It belongs to the
// monitor, which runs it in the resource's own goroutine, and speaks to the agent
// by the group's socket (Store). What it keeps is cut into chunks that are named
// by their hash, so that only what changed is sent.
//
// What it promises:
//
//   - A file is restored whole or not at all, with its mode and owner. A restore
//     that ends in between is done again before the next start: only after all of
//     it the database says that this node has the files.
//   - What a former owner still sends is refused, by its epoch.
//   - A node that ran the resource last keeps its own files: they are as new as
//     the checkpoint or newer.
//   - No symbolic link is followed, anywhere in a path: a resource's user could
//     have the agent read or write another user's files by one.
//
// What changes between the last look and a crash is lost: it is a checkpoint, no
// replication.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Limits, as the database has them.
const (
	chunkSize = 256 << 10
	maxBytes  = 16 << 20
	maxFiles  = 1000
)

// File is one file of a checkpoint. A command's output has no path.
type File struct {
	Path   string   `json:"path,omitempty"`
	Mode   uint32   `json:"mode,omitempty"`
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Size   int64    `json:"size"`
	Chunks []string `json:"chunks,omitempty"` // sha256, hex
}

func (f File) equal(g File) bool {
	return f.Path == g.Path && f.Mode == g.Mode && f.UID == g.UID && f.GID == g.GID && f.Size == g.Size && slices.Equal(f.Chunks, g.Chunks)
}

// Manifest is a checkpoint as the database has it. There is none where Epoch is 0.
type Manifest struct {
	Epoch uint64 `json:"epoch"` // of who made it, or restored it last
	Node  string `json:"node"`  // name of that one's node
	Files []File `json:"files"`
}

// Store is the database, through the agent. Each call is for the keeper's
// resource, and fails once its epoch is not the group's current one any more.
type Store interface {
	Load(ctx context.Context) (Manifest, error)
	Chunk(ctx context.Context, hash string) ([]byte, error)
	PutChunk(ctx context.Context, data []byte) error
	Put(ctx context.Context, files []File) error
	// Problem has a line of the event log say why nothing is kept.
	Problem(ctx context.Context, text string) error
}

// Config says what is kept, and where.
type Config struct {
	Spec  spec.Checkpoint
	Node  string // name of this node
	Dir   string // the node's directory, which relative paths are below
	Store Store
	// Run runs a command as the resource's user, with its environment: its input
	// from the file in, its output to the file out, where they are set.
	Run func(ctx context.Context, command []string, in, out string) error
	// User is who the resource runs as, -1: as this process.
	User int
	// Log tells what a person may want to know; it may be nil.
	Log func(text string)
}

// Keeper keeps one resource's checkpoint.
type Keeper struct {
	conf     Config
	paths    []string // of conf.Spec, on this node
	kept     []File   // what the database has
	known    map[string]bool
	stamps   []stamp // of the files when they were last found as kept
	problem  string  // the last that was told
	moving   int     // looks in a row that found files changing under them
	restored bool
}

// New makes a keeper. Its goroutine is the caller's.
func New(conf Config) *Keeper {
	if dir, err := filepath.EvalSymlinks(conf.Dir); err == nil {
		conf.Dir = dir // the directory itself may lie behind a link; nothing below it may
	}
	k := &Keeper{conf: conf, known: map[string]bool{}}
	for _, p := range conf.Spec.Paths {
		k.paths = append(k.paths, k.place(p))
	}
	return k
}

// place is where on this node a path of the definition or the database is; name
// is its way back.
func (k *Keeper) place(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(k.conf.Dir, path)
}

func (k *Keeper) name(place string) string {
	if rel, ok := strings.CutPrefix(place, k.conf.Dir+"/"); ok && k.conf.Dir != "" {
		return rel
	}
	return place
}

// Restore brings the files back, unless this node had them last or there is no
// checkpoint yet. After it, the database says that this node has them.
func (k *Keeper) Restore(ctx context.Context) error {
	m, err := k.conf.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	k.remember(m.Files)
	switch {
	case m.Epoch == 0:
		k.kept = nil
	case m.Node == k.conf.Node && k.anyThere(m.Files) && !k.halfRestored(m.Files):
	default:
		if err := k.bringBack(ctx, m); err != nil {
			return fmt.Errorf("checkpoint of node %s: %w", m.Node, err)
		}
		if err := k.conf.Store.Put(ctx, m.Files); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	k.restored = true
	return nil
}

func (k *Keeper) remember(files []File) {
	k.kept = files
	clear(k.known)
	for _, f := range files {
		for _, hash := range f.Chunks {
			k.known[hash] = true
		}
	}
}

// anyThere tells whether a file of the checkpoint is on this node: else its disk
// was emptied. A command's output says nothing about that.
func (k *Keeper) anyThere(files []File) bool {
	if len(files) == 0 || len(k.conf.Spec.Command) > 0 {
		return true
	}
	return slices.ContainsFunc(files, func(f File) bool { return exists(k.place(f.Path)) })
}

func (k *Keeper) bringBack(ctx context.Context, m Manifest) error {
	if len(k.conf.Spec.Command) > 0 {
		return k.bringBackOutput(ctx, m)
	}
	if err := k.markRestore(m.Files); err != nil {
		return err
	}
	for _, f := range m.Files {
		if f.Path == "" || !k.covers(k.place(f.Path)) { // the definition has changed since
			continue
		}
		f.Path = k.place(f.Path)
		if err := writeFile(ctx, f, k.conf.Store.Chunk); err != nil {
			return err
		}
	}
	if err := k.removeOthers(m.Files); err != nil {
		return err
	}
	return k.unmarkRestore(m.Files)
}

// Look keeps what has changed since it was last kept. An error is told once in
// the event log and tried again at the next look: the resource goes on.
func (k *Keeper) Look(ctx context.Context) {
	if !k.restored {
		return
	}
	err := k.look(ctx)
	if errors.Is(err, errMoving) {
		k.moving++
	} else {
		k.moving = 0
	}
	switch {
	case err == nil:
		k.problem = ""
	case ctx.Err() != nil, k.moving > 0 && k.moving < movingMost:
	case err.Error() != k.problem:
		if k.conf.Log != nil {
			k.conf.Log("the checkpoint can't be kept: " + err.Error())
		}
		if k.conf.Store.Problem(ctx, err.Error()) == nil {
			k.problem = err.Error()
		}
	}
}

// errMoving is of files that change while they are read: the next look may find
// them at rest. After movingMost looks that did not, it is told.
var errMoving = errors.New("the files change while they are read, so that nothing new is kept; name files that are at rest now and then")

const movingMost = 20

func (k *Keeper) look(ctx context.Context) error {
	if len(k.conf.Spec.Command) > 0 {
		return k.lookOutput(ctx)
	}
	began := time.Now()
	stamps, err := scan(k.paths)
	if err != nil {
		return err
	}
	if k.stamps != nil && slices.Equal(stamps, k.stamps) {
		return nil
	}
	files := make([]File, 0, len(stamps))
	for _, s := range stamps {
		f, err := k.take(ctx, s)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if err := k.put(ctx, files); err != nil {
		return err
	}
	// A file that was written a moment ago may be written again within the
	// grain of its time stamp: look at it once more.
	k.stamps = stamps
	for _, s := range stamps {
		if began.Sub(time.Unix(0, s.mtime)) < time.Second {
			k.stamps = nil
		}
	}
	return nil
}

// take reads a file, sends what the database doesn't have, and says what it is.
func (k *Keeper) take(ctx context.Context, s stamp) (File, error) {
	file, err := openFile(s.path)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	f := File{Path: k.name(s.path), Mode: s.mode, UID: s.uid, GID: s.gid}
	if err := k.send(ctx, file, &f); err != nil {
		return File{}, err
	}
	if again, err := stampOf(s.path, file); err != nil || again != s || f.Size != s.size {
		return File{}, errMoving
	}
	return f, nil
}

func (k *Keeper) put(ctx context.Context, files []File) error {
	if k.kept != nil && slices.EqualFunc(files, k.kept, File.equal) {
		return nil
	}
	err := k.conf.Store.Put(ctx, files)
	if err != nil {
		clear(k.known) // perhaps a chunk is there no longer
		return err
	}
	k.remember(files)
	return nil
}
