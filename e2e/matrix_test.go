package e2e

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// Every row of the failure matrix of four definitions happens: what it says fails
// is killed or cut off, and each group has to be where the row says, or down where
// it says so, with a quorum or without; groups of which it says nothing are not
// touched, and two nodes never hold an address. And a group whose node failed is
// away for no longer than the plan says (bench/matrix --lab prints how long each was).
func TestMatrixHolds(t *testing.T) {
	if err := netlab.Allowed(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	for _, scene := range faultlab.Scenes() {
		t.Run(scene.Name, func(t *testing.T) {
			t.Parallel()
			trial, err := faultlab.Try(t.Context(), program, t.TempDir(), scene)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					logs := filepath.Join(t.ArtifactDir(), "logs")
					t.Logf("what the nodes said is kept in %s (go test -artifacts): %v", logs, faultlab.Keep(trial.Cluster, logs))
				}
				if err := trial.Close(); err != nil {
					t.Error(err)
				}
			})
			measured, late := 0, []faultlab.Took{}
			for _, row := range trial.Rows {
				if row.Zone != "" { // its nodes are a pair, which has been through
					i := slices.IndexFunc(trial.Rows, func(pair faultlab.Row) bool { return pair.Zone == "" && slices.Equal(pair.Fail, row.Fail) })
					if i < 0 || trial.Rows[i].Quorum != row.Quorum || !reflect.DeepEqual(trial.Rows[i].Groups, row.Groups) {
						t.Errorf("%s: %+v; its nodes as a pair: row %d of %+v", row.Name(), row, i, trial.Rows)
					}
					continue
				}
				var told faultlab.Tried
				for range 5 {
					if told, err = trial.Row(t.Context(), row); err == nil && len(told.Late()) == 0 || err != nil && !errors.Is(err, faultlab.ErrDisturbed) {
						break
					}
					t.Logf("tried again: late %+v, %v", told.Late(), err)
				}
				if err != nil {
					t.Fatal(err)
				}
				text, _ := json.Marshal(told)
				t.Logf("%s", text)
				measured += len(told.Groups)
				late = append(late, told.Late()...)
			}
			// A machine that others keep busy may make one late, five times in a row. Half
			// of them it is not: then the plan says too little.
			if len(late) > measured/2 {
				t.Errorf("of %d groups %d were away for longer than the plan says at most: %+v", measured, len(late), late)
			}
		})
	}
}
