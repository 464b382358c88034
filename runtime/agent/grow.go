package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

// How a single node's database becomes a majority's on disk. The store itself
// says which it is, and changes from one to the other in one synced write: no
// kill leaves both, or neither. Two files beside it:
//
//   - model, in the data directory, says that it was made for a single node. What
//     the store holds counts for more; it is taken away afterwards.
//   - majority, beside the data directory, is written before: a data directory
//     that is put back to what it was before the change (from a backup) would
//     serve alone while others do too. It names the server, so that a new
//     data directory is another matter.

// grownFile is in the node's directory: the data directory's server id, then
// begun or done.
const grownFile = "majority"

const (
	growBegun = "begun"
	growDone  = "done"
)

func writeMark(dir string, server uint64, word string) error {
	return atomicfile.Write(filepath.Join(dir, grownFile), fmt.Appendf(nil, "%d %s\n", server, word), 0o600)
}

// growSteps are the writes of the change, each durable before the next. After
// a kill between any two, settleGrown goes on.
func growSteps(dir string, server uint64, write func() error) []func() error {
	return []func() error{
		func() error { return writeMark(dir, server, growBegun) },
		write,
		func() error { return writeMark(dir, server, growDone) },
		func() error {
			if err := os.Remove(filepath.Join(dir, dataDir, modelFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := atomicfile.SyncDir(filepath.Join(dir, dataDir)); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil // it was removed below this agent, whose database goes to others so
		},
	}
}

// writeGrown has a single node's store hold a majority's database.
func (n *Node) writeGrown(p confdb.Persist) error {
	for _, step := range growSteps(n.files.dir, n.facts.ServerID, func() error { return n.store.Write(p) }) {
		if err := step(); err != nil {
			return fmt.Errorf("make the database a majority's: %w", err)
		}
	}
	return nil
}

// settleGrown says which model's database a directory for a single node holds,
// and ends a change that was cut off once the store had it.
func settleGrown(dir string, server uint64, stored confdb.Stored) (spec.Quorum, error) {
	if raftdb.Holds(stored) {
		for _, step := range growSteps(dir, server, nil)[2:] {
			if err := step(); err != nil {
				return spec.Quorum{}, fmt.Errorf("end the change to a majority's database: %w", err)
			}
		}
		return spec.Quorum{}, nil
	}
	mark := filepath.Join(dir, grownFile)
	data, err := os.ReadFile(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return spec.Quorum{}, err
	}
	if strings.TrimSpace(string(data)) == fmt.Sprintf("%d %s", server, growDone) {
		return spec.Quorum{}, fmt.Errorf("%s is from before this database became a majority's, and may not serve alone any more (was it put back from a backup?): empty it and run clusterplan apply, which joins the node anew; if no other node ever joined, remove %s to go on with what it holds",
			filepath.Join(dir, dataDir), mark)
	}
	return spec.Quorum{Model: spec.SingleNode}, nil
}
