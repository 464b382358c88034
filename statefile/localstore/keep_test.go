package localstore

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
)

// What is kept is the state as it was known, journal and all; nothing takes its
// place, and it can be brought back.
func TestKeepAndReplace(t *testing.T) {
	path := DefaultPath(t.TempDir())
	s := open(t, path)
	l := lock(t, s)
	if name, err := l.Keep(context.Background()); name != "" || err != nil {
		t.Fatalf("kept %q of nothing, %v", name, err)
	}
	do(t, run(l, "r1", made("n1")), l.Append(begin("r2"), made("n2"))) // r2 comes to no end
	kept, err := l.Keep(context.Background())
	do(t, err)
	if fi, err := os.Stat(kept); err != nil || fi.Mode().Perm() != 0o600 || filepath.Base(kept) != "state.json.1.backup" {
		t.Fatalf("%s: %v, %v", kept, fi, err)
	}
	if again, err := l.Keep(context.Background()); again != kept || err != nil {
		t.Errorf("the same kept twice, as %s, %v", again, err)
	}
	snap, err := l.Read(context.Background())
	do(t, err)
	before := snap.State
	snap.State.Objects = nil
	do(t, l.Finish(snap.State))
	if got := names(t, s); got != "" {
		t.Fatalf("left %s", got)
	}

	// Another state of the same serial takes another name.
	do(t, os.WriteFile(path+".2.backup", []byte("a person's"), 0o600))
	other, err := l.Keep(context.Background())
	do(t, err)
	if data, _ := os.ReadFile(path + ".2.backup"); string(data) != "a person's" || filepath.Base(other) != "state.json.2-2.backup" {
		t.Errorf("kept in %s; %s", other, data)
	}

	data, err := os.ReadFile(kept)
	do(t, err)
	back, err := statefile.Unmarshal(data)
	do(t, err, l.Replace(*back))
	snap, err = s.Read(context.Background())
	do(t, err)
	if describe(snap) != "n1 n2" || snap.State.Serial != 3 || snap.State.Lineage != before.Lineage || snap.Unfinished != 0 {
		t.Errorf("%+v", snap)
	}

	// A state from elsewhere brings its lineage and its serial; a run goes on from it.
	back.Lineage, back.Serial = "elsewhere", 40
	do(t, l.Replace(*back), run(l, "r3", made("n3")))
	snap, err = s.Read(context.Background())
	do(t, err)
	if describe(snap) != "n1 n2 n3" || snap.State.Serial != 42 || snap.State.Lineage != "elsewhere" {
		t.Errorf("%+v", snap)
	}

	// What was begun and has no end can't be kept, and is not forgotten.
	n4 := addr.Node("n4", addr.NoKey)
	do(t, l.Append(begin("r4"), statefile.Entry{Intent: &statefile.Intent{Addr: n4, Action: "create", Object: &statefile.Object{Addr: n4, Type: "node", ID: "n4"}}}))
	if name, err := l.Keep(context.Background()); err == nil {
		t.Errorf("kept as %s what would be missing in it", name)
	}
}

// A state of another lineage takes the place of one that has an unfinished run's
// journal beside it. At each write a crash leaves the one or the other.
func TestReplaceCutOff(t *testing.T) {
	path := DefaultPath(t.TempDir())
	s := open(t, path)
	l := lock(t, s)
	do(t, run(l, "r1", made("n1")), l.Append(begin("r2"), made("n2")))
	seen := 0
	s.step = func(what string) {
		snap, err := s.Read(context.Background())
		if err != nil {
			t.Errorf("cut off before %q: %v", what, err)
			return
		}
		seen++
		if want := map[bool]string{true: "other", false: "n1 n2"}[snap.State.Lineage == "elsewhere"]; describe(snap) != want {
			t.Errorf("cut off before %q: %s, not %s", what, describe(snap), want)
		}
	}
	other := statefile.State{Lineage: "elsewhere", Serial: 40, Objects: []statefile.Object{*made("other").Result.Object}}
	do(t, l.Replace(other))
	if got := names(t, s); got != "other" || seen < 8 {
		t.Errorf("%s after %d effects", got, seen)
	}
}
