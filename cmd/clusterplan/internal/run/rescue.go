package run

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/statefile"
)

// rescueName is the file for a state that could not be written where it belongs.
const rescueName = "errored.clusterplan-state.json"

// rescue writes what an apply knows beside the definition, where err ended it and
// the state's directory is gone with all that was written there: else nobody would
// know what was made, and the keys would be lost. Where state or journal can be
// read, they tell all that is needed, and err is returned as it is.
func (s *Session) rescue(res *apply.Result, err error) error {
	if err == nil || res == nil || len(res.State.Objects) == 0 && len(res.Pending) == 0 {
		return err
	}
	// A server that does not answer may have it all; until it does, nobody knows.
	remote := s.remote()
	if snap, rerr := s.Store.Read(context.Background()); rerr != nil && !remote || rerr == nil && snap.State.Lineage != "" {
		return err
	}
	st := withPending(res)
	st.Program, st.Serial, st.Lineage = s.opts.Version, st.Serial+1, cmp.Or(st.Lineage, s.Snap.State.Lineage, pki.NewID())
	data, merr := statefile.Marshal(&st)
	if merr == nil && s.keys.Seals() {
		data, merr = s.keys.Seal(data)
	}
	if merr != nil {
		return fmt.Errorf("%w; what the apply had done could not be written anywhere else either: %w", err, merr)
	}
	dirs := []string{s.abs, os.TempDir()}
	if remote { // git is kept from what lies there; a state's own directory may be what is gone
		dirs = slices.Insert(dirs, 0, s.dataDir())
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, rescueName)
		for n := 2; ; n++ { // one that was not pushed yet is all that knows of another apply
			if _, err := os.Lstat(path); err != nil {
				break
			}
			path = filepath.Join(dir, fmt.Sprintf("%s-%d.json", strings.TrimSuffix(rescueName, ".json"), n))
		}
		if atomicfile.Write(path, data, 0o600) == nil {
			return &view.Hint{Err: fmt.Errorf("%w; what the apply had done is in %s", err, path),
				Hint: rescueHint(s.Store.Path(), path, remote)}
		}
	}
	return fmt.Errorf("%w; what the apply had done could not be written anywhere else either", err)
}

// remote tells whether the state lies behind a network.
func (s *Session) remote() bool { return s.used != nil && s.used.Type != "local" }

// withPending is what an apply knows, with what it had begun and whose end is not in
// the journal: the next apply looks what became of it, as of all that was begun.
func withPending(res *apply.Result) statefile.State {
	st := res.State
	st.Objects = slices.Clone(st.Objects)
	for _, p := range res.Pending {
		if p.Object == nil || res.State.Find(p.Addr) != nil {
			continue
		}
		o := *p.Object
		o.Phases = []string{planner.PhaseBegun}
		st.Objects = append(st.Objects, o)
	}
	slices.SortFunc(st.Objects, func(a, b statefile.Object) int { return addr.Compare(a.Addr, b.Addr) })
	return st
}

func rescueHint(place, path string, remote bool) string {
	if remote { // its journal tells more, also of what was begun
		return fmt.Sprintf("Once %s answers again, clusterplan apply goes on from what it has, and the file can be removed. Only where it has lost the state: clusterplan state push %s.", place, shell.Quote(path))
	}
	return fmt.Sprintf("It holds the cluster's keys. Make the state's place usable again (%s), then: clusterplan state push %s, and remove that file.", filepath.Dir(place), shell.Quote(path))
}
