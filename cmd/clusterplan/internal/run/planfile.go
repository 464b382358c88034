package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/planfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// staleError is ErrStale with why.
type staleError struct{ why string }

func (e *staleError) Error() string { return "the plan is stale: " + e.why }

func (e *staleError) Is(target error) bool { return target == ErrStale }

// stale is the error for why the plan of a file is not good any more; "" is none.
func stale(f *planfile.File, why string) error {
	if why == "" {
		return nil
	}
	return &view.Hint{Err: &staleError{why}, Hint: "Nothing was changed. Plan again: clusterplan " + again(&f.Options) + " --out FILE, and apply that."}
}

// again is the command that makes a plan of the same kind, of the same part and with
// the same leave.
func again(o *planfile.Options) string {
	words := []string{"plan"}
	switch {
	case o.Rollback != "":
		words = []string{"rollback", fmt.Sprintf("%.12s", o.Ref)}
	case o.Ref != "":
		words = append(words, "--ref", shell.Quote(o.Ref))
	}
	for _, f := range []struct {
		flag  string
		given bool
	}{
		{"--destroy", o.Mode == planner.ModeDestroy}, {"--refresh-only", o.Mode == planner.ModeRefreshOnly}, {"--refresh=false", o.NoRefresh},
		{"--allow-quorum-loss", o.AllowQuorumLoss}, {"--pairs", o.Pairs},
	} {
		if f.given {
			words = append(words, f.flag)
		}
	}
	for _, f := range []struct {
		flag      string
		addresses []string
	}{{"--target", o.Targets}, {"--exclude", o.Excludes}, {"--replace", o.Replace}} {
		for _, a := range f.addresses {
			words = append(words, f.flag, shell.Quote(a))
		}
	}
	return strings.Join(words, " ")
}

// CanSave tells whether a plan can be saved at path: not over something that
// is no plan file.
func CanSave(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if parent, err := os.Stat(filepath.Dir(path)); err != nil || !parent.IsDir() {
			return &view.Hint{Err: fmt.Errorf("--out: there is no directory %s", filepath.Dir(path)), Hint: "Make it first, or name a file in another one."}
		}
		return nil
	case err != nil:
		return fmt.Errorf("--out: %w", err)
	case !info.Mode().IsRegular():
		return &view.Hint{Err: fmt.Errorf("--out: %s is not a file", path), Hint: "Name the file that is to hold the plan."}
	case info.Size() == 0:
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer f.Close()
	begin := make([]byte, 64)
	n, _ := io.ReadFull(f, begin)
	if !planfile.IsPlan(begin[:n]) && !strings.HasPrefix(string(begin[:n]), sealedPlan) {
		return &view.Hint{Err: fmt.Errorf("--out: %s is there already, and is no plan file", path), Hint: "Name another file; only an earlier plan is written over."}
	}
	return nil
}

// Save writes a plan of a session that recorded its reads (Options.Record) to
// path. text is the plan for people.
func (s *Session) Save(path string, p *Planned, o PlanOptions, text string) error {
	if s.reads == nil {
		return errors.New("save the plan: what it was made from was not recorded")
	}
	if names := s.secrets(p.Definition); len(names) > 0 && !s.keys.Seals() {
		const most = 3
		if len(names) > most {
			names = append(names[:most], "...")
		}
		return &view.Hint{Err: fmt.Errorf("the plan is not saved: it has sensitive values (%s), and the file would hold them in plain", strings.Join(names, ", ")),
			Hint: "Encrypt it: an encryption block in the clusterplan block has state and plan files encrypted. Or apply without a plan file: clusterplan apply."}
	}
	f := &planfile.File{
		Program: s.opts.Version, Dir: s.Dir, Abs: s.abs, Text: text, Sources: s.reads.Sources(),
		Options: planfile.Options{Mode: p.Plan.Mode, NoRefresh: o.NoRefresh, AllowQuorumLoss: o.AllowQuorumLoss, Replace: texts(o.Replace),
			Targets: texts(o.Targets), Excludes: texts(o.Excludes), Pairs: o.Pairs, Rollback: s.opts.Back, Ref: s.opts.Ref},
		RestsOn: planfile.RestsOn{Lineage: s.Snap.State.Lineage, Serial: s.Snap.State.Serial, Journal: s.Snap.Unfinished, ConfigRevision: p.Plan.ConfigRevision},
	}
	for _, v := range s.Config.Variables() {
		if !v.Value.IsWhollyKnown() {
			continue // of a broken definition, which a destroy does without
		}
		one, err := planfile.VariableOf(v.Name, v.Value)
		if err != nil {
			return err
		}
		f.Variables = append(f.Variables, one)
	}
	var err error
	if f.Plan, err = planfile.MarshalPlan(p.Plan); err != nil {
		return err
	}
	data, err := planfile.Marshal(f)
	if err == nil && s.keys.Seals() {
		if data, err = s.keys.Seal(data); err == nil {
			data = append([]byte(sealedPlan), data...)
		}
	}
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	if err := CanSave(path); err != nil { // it may have changed since the plan was begun
		return err
	}
	if err := atomicfile.Write(path, data, 0o600); err != nil {
		return &view.Hint{Err: fmt.Errorf("save the plan: %w", err), Hint: "Nothing was changed. Name a file on a disk that has room and can be written, with --out."}
	}
	return nil
}

// secrets names what in a definition is sensitive, wherever it comes from.
func (s *Session) secrets(def *lang.Definition) []string {
	var names []string
	for _, v := range s.Config.Variables() {
		if v.Sensitive && !(v.Value.IsKnown() && v.Value.IsNull()) {
			names = append(names, "var."+v.Name)
		}
	}
	if def == nil {
		return names
	}
	for i := range def.Objects {
		if schema.IsSensitive(def.Objects[i].Value) {
			names = append(names, def.Objects[i].Addr.String())
		}
	}
	for _, p := range def.Providers {
		if schema.IsSensitive(p.Config) {
			names = append(names, "provider."+p.Name)
		}
	}
	for _, o := range def.Outputs {
		if o.Sensitive {
			names = append(names, "output."+o.Name)
		}
	}
	return names
}

// ReadPlan reads a plan file.
func ReadPlan(path string) (*planfile.File, error) {
	fail := func(err error) error { return fmt.Errorf("plan file %s: %w", path, err) }
	info, err := os.Stat(path)
	if err != nil {
		return nil, fail(errors.Unwrap(err))
	}
	if !info.Mode().IsRegular() { // to open a pipe may take for ever
		return nil, &view.Hint{Err: fail(planfile.ErrNotPlan), Hint: "It is not a regular file. Name the file that plan --out wrote."}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fail(errors.Unwrap(err))
	}
	defer file.Close()
	data, err := readAtMost(file, planfile.Limit)
	if errors.Is(err, errTooLarge) {
		return nil, &view.Hint{Err: fail(fmt.Errorf("%w: %w", planfile.ErrNotPlan, err)), Hint: "Name the file that plan --out wrote."}
	}
	if err != nil {
		return nil, fail(err)
	}
	if inner, ok := bytes.CutPrefix(data, []byte(sealedPlan)); ok {
		data, err = openFile("plan file "+path, inner)
		if errors.Is(err, statefile.ErrDamaged) {
			return nil, &view.Hint{Err: err, Hint: "It can't be trusted any more. Plan again: clusterplan plan --out FILE, and copy the whole file."}
		}
		if err != nil {
			return nil, err
		}
	}
	f, err := planfile.Unmarshal(data)
	switch {
	case errors.Is(err, planfile.ErrNotPlan):
		return nil, &view.Hint{Err: fail(err), Hint: "Name the file that plan --out wrote, or the directory of a definition."}
	case errors.Is(err, planfile.ErrNewer):
		return nil, &view.Hint{Err: fail(err), Hint: "Use that version, or plan again with this one: clusterplan plan --out FILE."}
	case err != nil:
		return nil, &view.Hint{Err: fail(err), Hint: "It can't be trusted any more. Plan again: clusterplan plan --out FILE, and copy the whole file."}
	}
	return f, nil
}

// OpenPlan opens the session that a plan file was made in. Of the directory
// only state and nodes are used: the definition is the file's.
func OpenPlan(f *planfile.File, o Options) (*Session, error) {
	if info, err := os.Stat(f.Abs); err != nil || !info.IsDir() {
		return nil, &view.Hint{Err: fmt.Errorf("the plan was made for %s, which is no directory here", f.Abs),
			Hint: "The state lies there. Apply it on the host, and in the place, where it was planned; or plan again."}
	}
	o.Vars = nil
	for i := range f.Variables {
		v, err := f.Variables[i].Cty()
		if err != nil {
			return nil, err
		}
		o.Vars = append(o.Vars, lang.VarInput{Name: f.Variables[i].Name, Value: v, Source: "the plan file"})
	}
	o.Back = f.Options.Rollback
	s := newSession(o)
	if err := s.place.fromPlan(f.Plan); err != nil {
		return nil, err
	}
	s.presently(f.Abs, f.Options.Ref != "")
	s.Dir, s.abs = f.Dir, f.Abs
	if abs, err := filepath.Abs(f.Dir); err != nil || abs != f.Abs {
		s.Dir = f.Abs // called from another directory
	}
	return s, s.load(f.FS(), f.Dir, nil)
}

// FromFile are the options that a plan file was made with.
func FromFile(f *planfile.File) (PlanOptions, error) {
	o := PlanOptions{Mode: f.Options.Mode, NoRefresh: f.Options.NoRefresh, AllowQuorumLoss: f.Options.AllowQuorumLoss, Pairs: f.Options.Pairs,
		AllowDelete: true} // what is deleted was seen when the plan was made
	var err error
	for _, list := range []struct {
		into  *[]addr.Address
		texts []string
	}{{&o.Replace, f.Options.Replace}, {&o.Targets, f.Options.Targets}, {&o.Excludes, f.Options.Excludes}} {
		if *list.into, err = parsed(list.texts); err != nil {
			return o, err
		}
	}
	return o, nil
}

func texts(list []addr.Address) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

func parsed(list []string) ([]addr.Address, error) {
	var out []addr.Address
	for _, text := range list {
		a, err := addr.ParseTarget(text)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// staleState tells whether a plan file still fits the state that was read.
func (s *Session) staleState(f *planfile.File) error {
	if f == nil {
		return nil
	}
	return stale(f, f.StaleState(s.opts.Version, &s.Snap.State, s.Snap.Unfinished))
}

// stalePlan tells whether a plan that was worked out today, perhaps with err,
// is the one that the file shows.
func stalePlan(f *planfile.File, p *Planned, err error) error {
	if f == nil || p == nil || p.Plan == nil {
		return err
	}
	why, failed := f.StalePlan(p.Plan)
	if failed != nil {
		return errors.Join(err, failed)
	}
	if why == "" && err != nil && errors.Is(err, ErrQuorum) {
		why = "the cluster would lose its quorum on the way"
	}
	if why != "" && (err == nil || errors.Is(err, ErrQuorum)) {
		return stale(f, why)
	}
	return err
}
