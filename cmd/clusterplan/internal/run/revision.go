package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/internal/revision"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/planfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// place is a definition's place in git.
type place struct {
	reads *revision.Reads            // of the directory's files; nil: it was read as of a revision
	fixed *planner.DefinitionVersion // known without a look: a revision's, or a plan file's
	at    revision.Commit            // of Options.Ref
	// now is the directory's own definition where another revision, or a plan file,
	// was read: it says who can read the state, and for a revision also where that is.
	// nil: what was read does.
	now    *lang.Config
	unread bool // now has errors, or is none: what it does not say, what was read says
	ref    bool // it was a revision that was read
}

// files are the definition's: the directory's, or those of a revision.
func (s *Session) files() (fs.FS, error) {
	s.tree = newTree(s.Dir)
	own, err := s.ownFiles()
	return cacheAside{own, s.tree}, err
}

func (s *Session) ownFiles() (fs.FS, error) {
	if s.opts.Ref == "" {
		s.place.reads = revision.Watch(s.tree)
		return s.place.reads, nil
	}
	repo, at, err := commit(s.Dir, s.opts.Ref)
	if err != nil {
		return nil, err
	}
	tree, err := repo.Tree(at.Hash, repo.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &view.Hint{Err: fmt.Errorf("revision %q: commit %s has no directory %s", s.opts.Ref, at.Hash[:12], repo.Dir),
			Hint: "Name a revision in which the definition is there. git log --oneline -- " + s.Dir + " lists them."}
	}
	if err != nil {
		return nil, err
	}
	s.place.at = at
	s.place.fixed = &planner.DefinitionVersion{Git: &at.Hash}
	if err := s.varFiles(repo, at.Hash); err != nil {
		return nil, err
	}
	s.presently(s.Dir, true)
	return &committed{tree.At("."), repo}, nil
}

// presently has the definition that is in dir now say where the state is, and for
// whom: an older one may name another place for it, no encryption yet, or people
// who have been taken out.
func (s *Session) presently(dir string, ref bool) {
	now := newTree(dir)
	defer now.Close()
	var diags hcl.Diagnostics
	s.place.now, diags = lang.Load(lang.Options{FS: now, Dir: dir, Modules: modules(now, nil), Version: s.opts.Version, Providers: s.places(), Machinery: s.registry.Machinery(), AllowUnset: true})
	s.place.unread = diags.HasErrors() || len(s.place.now.Files()) == 0
	s.place.ref = ref
}

// committed is a definition's directory as of a commit, with those of its modules
// under moduleDirs, as a tree has them: all of one commit.
type committed struct {
	root *revision.Tree
	repo *revision.Repo
}

// inRepo is where the repository has what a tree calls name; false: it lies
// outside of the repository.
func inRepo(repo *revision.Repo, name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, moduleDirs); ok {
		escaped, rest, _ := strings.Cut(rest, "/")
		dir, err := url.PathUnescape(escaped)
		if err != nil {
			return "", false
		}
		name = path.Join(dir, rest)
	}
	name = path.Join(repo.Dir, name)
	return name, fs.ValidPath(name)
}

func (c *committed) at(op, name string) (string, error) {
	if full, ok := inRepo(c.repo, name); ok {
		return full, nil
	}
	return "", &fs.PathError{Op: op, Path: name, Err: errors.New("it lies outside of the repository, which has no revision of it")}
}

// Open is fs.FS.
func (c *committed) Open(name string) (fs.File, error) {
	full, err := c.at("open", name)
	if err != nil {
		return nil, err
	}
	return c.root.Open(full)
}

// ReadFile is fs.ReadFileFS.
func (c *committed) ReadFile(name string) ([]byte, error) {
	full, err := c.at("open", name)
	if err != nil {
		return nil, err
	}
	return c.root.ReadFile(full)
}

// ReadDir is fs.ReadDirFS.
func (c *committed) ReadDir(name string) ([]fs.DirEntry, error) {
	full, err := c.at("open", name)
	if err != nil {
		return nil, err
	}
	return c.root.ReadDir(full)
}

// Stat is fs.StatFS.
func (c *committed) Stat(name string) (fs.FileInfo, error) {
	full, err := c.at("stat", name)
	if err != nil {
		return nil, err
	}
	return c.root.Stat(full)
}

// At is the commit that the definition was read as of; its Hash is "" otherwise.
func (s *Session) At() revision.Commit { return s.place.at }

func (s *Session) backend() *lang.Backend {
	if p := &s.place; p.ref && (p.now.Backend != nil || !p.unread) {
		return p.now.Backend
	}
	return s.Config.Backend
}

func (s *Session) encryption() *lang.Encryption {
	if p := &s.place; p.now != nil && (p.now.Encryption != nil || !p.unread) {
		return p.now.Encryption
	}
	return s.Config.Encryption
}

// varFiles reads the --var-file files that belong to the repository as of the
// revision too, where that has them.
func (s *Session) varFiles(repo *revision.Repo, hash string) error {
	vars := make([]lang.VarInput, len(s.opts.Vars))
	copy(vars, s.opts.Vars)
	s.opts.Vars = vars
	for i := range vars {
		in := &vars[i]
		if in.File == "" {
			continue
		}
		data, err := inTree(repo, hash, in.File)
		switch {
		case err == nil:
			in.Src = data
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("--var-file as of %s: %w", s.opts.Ref, err)
		case in.Src == nil:
			return &view.Hint{Err: fmt.Errorf("--var-file: neither this directory nor revision %q has %s", s.opts.Ref, in.File), Hint: "Name a file that is there in one of the two."}
		}
	}
	return nil
}

// inTree reads a file, named as in the working tree, as of a commit.
func inTree(repo *revision.Repo, hash, name string) ([]byte, error) {
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	rel, err := filepath.Rel(repo.Root, filepath.Join(dir, filepath.Base(name)))
	if err != nil || !filepath.IsLocal(rel) {
		return nil, fs.ErrNotExist
	}
	root, err := repo.Tree(hash, ".")
	if err != nil {
		return nil, err
	}
	return root.ReadFile(filepath.ToSlash(rel))
}

// commit finds a revision of the repository that dir lies in.
func commit(dir, expression string) (*revision.Repo, revision.Commit, error) {
	repo, err := revision.Open(dir)
	switch {
	case errors.Is(err, revision.ErrNone):
		return nil, revision.Commit{}, &view.Hint{Err: fmt.Errorf("revision %q: %w", expression, err), Hint: "Revisions are those of the repository that the definition's directory lies in. Name a directory of a clone."}
	case errors.Is(err, revision.ErrBare):
		return nil, revision.Commit{}, &view.Hint{Err: fmt.Errorf("revision %q: %w", expression, err), Hint: "It has no files to work in, nor a place for the state. Use a clone, or git worktree add."}
	case err != nil:
		return nil, revision.Commit{}, err
	}
	at, err := repo.Commit(expression)
	return repo, at, err
}

// version says which version of the definition was read. That it can't be told
// is a warning: what is planned is clear all the same.
func (s *Session) version() (planner.DefinitionVersion, hcl.Diagnostics) {
	if s.place.fixed != nil {
		return *s.place.fixed, nil
	}
	var v planner.DefinitionVersion
	unclear := func(err error) (planner.DefinitionVersion, hcl.Diagnostics) {
		return planner.DefinitionVersion{}, hcl.Diagnostics{{Severity: hcl.DiagWarning, Summary: "The definition's revision can't be told",
			Detail: planner.Sentence(err.Error()) + " Plan and state will not say which revision this is."}}
	}
	repo, err := revision.Open(s.Dir)
	if errors.Is(err, revision.ErrNone) || errors.Is(err, revision.ErrBare) {
		return v, nil
	}
	if err != nil {
		return unclear(err)
	}
	head, err := repo.Head()
	if err != nil {
		return unclear(err)
	}
	if head != "" {
		v.Git = &head
	}
	if v.Dirty, err = repo.Dirty(head, s.place.reads, func(name string) (string, bool) { return inRepo(repo, name) }, lang.IsFile); err != nil {
		return unclear(err)
	}
	return v, nil
}

// fromPlan takes the version that a plan file was made of.
func (p *place) fromPlan(plan json.RawMessage) error {
	var doc struct {
		Definition planner.DefinitionVersion `json:"definition"`
	}
	if err := json.Unmarshal(plan, &doc); err != nil {
		return fmt.Errorf("plan file: %w", err)
	}
	p.fixed = &doc.Definition
	return nil
}

// begin is the first entry of a run: who applies which version, with which variables.
func (s *Session) begin(p *planner.Plan, mode string) (statefile.Begin, error) {
	b := statefile.Begin{
		Run: pki.NewID(), Who: Who(), Action: verb(mode), Definition: statefile.Definition{Dirty: p.Definition.Dirty, Broken: p.BrokenGuarantees()},
		Counts: statefile.Counts{Add: p.Summary.Create + p.Summary.Replace, Change: p.Summary.Update, Destroy: p.Summary.Delete + p.Summary.Replace},
	}
	if p.Definition.Git != nil {
		b.Definition.Git = *p.Definition.Git
	}
	switch {
	case mode == planner.ModeRefreshOnly:
		b.Action = "refresh-only"
	case s.opts.Back != "":
		b.Action = "rollback"
	}
	if !ofDefinition(mode) {
		return b, nil
	}
	list := []statefile.Variable{}
	for _, v := range s.Config.Variables() {
		one := statefile.Variable{Name: v.Name, Sensitive: v.Sensitive}
		if !v.Sensitive {
			kept, err := planfile.VariableOf(v.Name, v.Value)
			if err != nil {
				return b, err
			}
			one.Type, one.Value = kept.Type, kept.Value
		}
		list = append(list, one)
	}
	var err error
	b.Variables, err = json.Marshal(list)
	return b, err
}

// outcome is what the history says of a run that came to its end.
func outcome(ctx context.Context, res *apply.Result, err error) string {
	switch {
	case res.Interrupted, errors.Is(context.Cause(ctx), context.Canceled):
		return statefile.OutcomeInterrupted
	case err != nil, len(res.Failed) > 0:
		return statefile.OutcomeFailed
	}
	return statefile.OutcomeDone
}

// Log is the state's history, newest first.
func (s *Session) Log(ctx context.Context) ([]statefile.Applied, error) {
	snap, err := s.Store.Read(ctx)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	var out []statefile.Applied
	for i := len(snap.State.History) - 1; i >= 0; i-- {
		out = append(out, snap.State.History[i])
	}
	return out, nil
}

// Rollback opens a session that plans the definition in dir as it was when rev
// was applied last, with what it was applied with. o.Vars give sensitive
// variables again.
func Rollback(ctx context.Context, dir, rev string, o Options) (*Session, error) {
	_, at, err := commit(dir, rev)
	if err != nil {
		return nil, err
	}
	now, err := Open(dir, Options{Version: o.Version, Stop: o.Stop})
	if err != nil {
		return nil, err
	}
	defer now.Close()
	snap, err := now.Store.Read(ctx)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	to := appliedAs(snap.State.History, at.Hash)
	if to == nil {
		return nil, &view.Hint{Err: fmt.Errorf("revision %q: commit %s was never applied to this cluster, as far as the state knows", rev, at.Hash[:12]),
			Hint: "clusterplan log lists what was. To apply another revision: clusterplan plan --ref " + shell.Quote(rev) + " --out FILE, and apply that."}
	}
	if to.Definition.Dirty {
		o.tell(fmt.Sprintf("Note: commit %s was applied with changes that were not committed. They are not in git: this goes to the commit without them.", at.Hash[:12]))
	}
	recorded, kept, err := snap.State.VariablesOf(to)
	if err != nil {
		return nil, err
	}
	if !kept && to.Action != "destroy" {
		o.tell("Note: the state does not keep the variables of that apply any more. Defaults hold, vars files of the revision, and what you give.")
	}
	given := o.Vars
	o.Vars = nil
	for i := range recorded {
		v := &recorded[i]
		if v.Sensitive {
			continue
		}
		value, err := (&planfile.Variable{Name: v.Name, Type: v.Type, Value: v.Value}).Cty()
		if err != nil {
			return nil, err
		}
		o.Vars = append(o.Vars, lang.VarInput{Name: v.Name, Value: value, Source: "the apply of " + to.Time.Format("2006-01-02 15:04")})
	}
	o.Vars = append(o.Vars, given...)
	o.Ref, o.Back = at.Hash, to.Run
	s, err := Open(dir, o)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, v := range s.Config.Variables() {
		if v.Sensitive && !v.Given {
			missing = append(missing, v.Name)
		}
	}
	if len(missing) > 0 {
		s.Close()
		return nil, &view.Hint{Err: fmt.Errorf("the state keeps no sensitive values; give again what these variables had with %s: %s", rev, strings.Join(missing, ", ")),
			Hint: fmt.Sprintf("With --var-file FILE, or %s%s in the environment.", lang.EnvPrefix, missing[0])}
	}
	return s, nil
}

// tell is Tell, if there is one.
func (o *Options) tell(text string) {
	if o.Tell != nil {
		o.Tell(text)
	}
}

// appliedAs is the newest run that applied a commit, one that was done before
// any other, one without changes that were not committed before that.
func appliedAs(history statefile.History, hash string) *statefile.Applied {
	var best *statefile.Applied
	worth := func(a *statefile.Applied) int {
		n := 0
		if !a.Definition.Dirty {
			n += 2
		}
		if a.Outcome == statefile.OutcomeDone {
			n++
		}
		return n
	}
	for i := len(history) - 1; i >= 0; i-- {
		a := &history[i]
		if a.Definition.Git == hash && (a.Action == "apply" || a.Action == "rollback") && (best == nil || worth(a) > worth(best)) {
			best = a
		}
	}
	return best
}

// moveBack has the session's view of the state call objects what they were
// called when the run that a rollback goes back to ended.
func (s *Session) moveBack() (statefile.State, []statefile.Pending, []statefile.Move, error) {
	if s.opts.Back == "" {
		return s.Snap.State, s.Snap.Pending, nil, nil
	}
	moves, err := s.Snap.State.Back(s.opts.Back)
	if err != nil {
		return s.Snap.State, nil, nil, fmt.Errorf("roll back: %w", err)
	}
	state, pending := statefile.Relabel(s.Snap.State, s.Snap.Pending, moves)
	return state, pending, moves, nil
}

// deleted refuses a rollback that would delete groups nobody said yes to.
func (s *Session) deleted(p *planner.Plan, o PlanOptions) hcl.Diagnostics {
	if s.opts.Back == "" || o.AllowDelete || p == nil {
		return nil
	}
	var names []string
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Action() == "delete" && c.Address.Type == addr.TypeGroup && !c.Address.IsResource() {
			names = append(names, c.Address.String())
		}
	}
	if len(names) == 0 {
		return nil
	}
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "The rollback would delete groups",
		Detail: fmt.Sprintf("%s came after that revision, and would be stopped and deleted. --allow-delete does that; to keep them, add their blocks to the older definition and apply that.", strings.Join(names, ", "))}}
}
