package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/boltdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/store"
)

// A data directory that was removed below its agent keeps no other node from getting
// the database.
func TestGrowStepsWithoutDataDirectory(t *testing.T) {
	for i, step := range growSteps(t.TempDir(), 1, func() error { return nil }) {
		if err := step(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

// A kill between any two writes of the change leaves one database, whole, that
// the next start finds; and after its end the one from before is refused.
func TestGrowStepsThroughKills(t *testing.T) {
	state := confdb.NewState()
	state.Apply(confdb.Command{ID: "1", PutCluster: &spec.Cluster{ID: "c", Name: "c", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}})
	encoded, err := confdb.Encode(state)
	if err != nil {
		t.Fatal(err)
	}
	steps := len(growSteps("", 0, nil))
	for done := range steps + 1 {
		t.Run(fmt.Sprint(done), func(t *testing.T) {
			dir := t.TempDir()
			st, err := store.Open(filepath.Join(dir, dataDir))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { st.Close() }()
			if err := os.WriteFile(filepath.Join(dir, dataDir, modelFile), []byte("single_node\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			single, _, _, err := boltdb.New(boltdb.Config{ServerID: st.ServerID()})
			if err != nil {
				t.Fatal(err)
			}
			if err := single.Bootstrap(); err != nil {
				t.Fatal(err)
			}
			r, _ := single.Ready()
			if err := st.Write(r.Persist); err != nil {
				t.Fatal(err)
			}
			single.Advance(r)
			_, grown, err := raftdb.Grow(raftdb.Config{ServerID: st.ServerID()}, 1, 1, encoded)
			if err != nil {
				t.Fatal(err)
			}
			old, err := st.Load()
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range growSteps(dir, st.ServerID(), func() error { return st.Write(grown) })[:done] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}

			open := func() (spec.Quorum, error) { // as newNode does
				stored, err := st.Load()
				if err != nil {
					return spec.Quorum{}, err
				}
				q, err := readModel(dir)
				if err == nil && q.Model == spec.SingleNode {
					q, err = settleGrown(dir, st.ServerID(), stored)
				}
				return q, err
			}
			for range 2 { // a second start finds the same
				q, err := open()
				if err != nil {
					t.Fatal(err)
				}
				stored, err := st.Load()
				if err != nil {
					t.Fatal(err)
				}
				if done < 2 {
					if _, _, _, err := boltdb.New(boltdb.Config{ServerID: st.ServerID(), Stored: stored}); err != nil || q.Model != spec.SingleNode {
						t.Fatalf("model %q, %v: the store holds a single node's", q.Model, err)
					}
					continue
				}
				d, got, _, err := raftdb.New(raftdb.Config{ServerID: st.ServerID(), Stored: stored})
				if err != nil || q.Model != "" {
					t.Fatalf("model %q, %v: the store holds a majority's", q.Model, err)
				}
				if s := d.Status(); got.Cluster.ID != "c" || len(s.Voters) != 1 || s.Voters[0] != st.ServerID() {
					t.Errorf("%+v, voters %v", got.Cluster, s.Voters)
				}
				if _, _, _, err := boltdb.New(boltdb.Config{ServerID: st.ServerID(), Stored: stored}); !errors.Is(err, confdb.ErrDamaged) {
					t.Errorf("a single node's driver takes it: %v", err)
				}
			}
			if done < 2 {
				return
			}
			// What was there before is put back, with its server id.
			if err := os.WriteFile(filepath.Join(dir, dataDir, modelFile), []byte("single_node\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := settleGrown(dir, st.ServerID(), old); err == nil || !strings.Contains(err.Error(), "may not serve alone any more") {
				t.Errorf("an older copy: %v", err)
			}
			// A new directory of the node is another server.
			if q, err := settleGrown(dir, st.ServerID()+1, confdb.Stored{}); err != nil || q.Model != spec.SingleNode {
				t.Errorf("a new directory: %+v, %v", q, err)
			}
		})
	}
}
