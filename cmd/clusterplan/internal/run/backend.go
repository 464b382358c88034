package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/internal/revision"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/gitstore"
	"github.com/clusterplan/clusterplan/statefile/httpstore"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// used is the backend that a definition's directory uses, as init has recorded it.
// Without a record it is the local one. A definition that says another one is no
// reason to go on with an empty state: everything would be made a second time.
type used struct {
	Type    string `json:"type"`
	Path    string `json:"path,omitempty"`    // local: absolute
	Address string `json:"address,omitempty"` // http, git
	// Lineage is that of the state which was seen there last: http, git.
	Lineage string `json:"lineage,omitempty"`
	// Settings are the definition's of then, Config what init --backend-config gave.
	Settings map[string]string `json:"settings,omitempty"`
	Config   map[string]string `json:"config,omitempty"`
}

func (u *used) same(o *used) bool {
	return u.Type == o.Type && u.Path == o.Path && u.Address == o.Address
}

// where it is, for people.
func (u *used) where() string {
	if u.Type == "local" {
		return u.Path
	}
	if u.Type == "git" {
		repository, ref, _ := strings.Cut(u.Address, " ")
		return (&gitstore.Settings{Repository: repository, Ref: ref}).Shown()
	}
	return (&httpstore.Settings{Address: u.Address}).Shown()
}

// elsewhere are the settings of a backend that is not on this machine.
type elsewhere struct {
	http httpstore.Settings
	git  gitstore.Settings
}

// elsewhere are u's settings, with what the environment has, and their address.
func (s *Session) elsewhere(u *used) (set elsewhere, address string, err error) {
	all := maps.Clone(u.Settings)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, u.Config)
	if u.Type == "git" {
		set.git, err = gitstore.ParseEnvironment(all, s.remoteURL)
		address = set.git.Address()
	} else {
		set.http, err = httpstore.ParseEnvironment(all)
		address = set.http.Address
	}
	if err != nil {
		return set, "", fmt.Errorf("backend %q: %w", u.Type, err)
	}
	return set, address, nil
}

// remoteURL is the URL of a remote of the repository that the definition lies in.
func (s *Session) remoteURL(name string) (string, error) {
	repo, err := revision.Open(s.abs)
	if err != nil {
		return "", err
	}
	return repo.Remote(name)
}

func (s *Session) record() string { return filepath.Join(s.dataDir(), "backend.json") }

// recorded is what init has recorded; nil: nothing.
func (s *Session) recorded() (*used, error) {
	data, err := os.ReadFile(s.record())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	u := new(used)
	if err == nil {
		err = json.Unmarshal(data, u)
	}
	if err == nil && u.Type != "local" && u.Type != "http" && u.Type != "git" {
		err = fmt.Errorf("it names the backend %q, which this version has not", u.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("which backend is used here, %s: %w; clusterplan init --reconfigure writes it anew, after a look at the definition's backend block", s.record(), err)
	}
	return u, nil
}

func (s *Session) setRecord(u *used) error {
	data, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(s.record(), append(data, '\n'), 0o600)
}

// defined is the backend that the definition has, with what init --backend-config
// gave, now or before.
func (s *Session) defined(before *used) (u *used, set elsewhere, err error) {
	b := s.backend()
	if b == nil {
		b = &lang.Backend{Type: "local"}
	}
	u = &used{Type: b.Type, Config: s.opts.BackendConfig}
	if u.Config == nil && before != nil && before.Type == u.Type {
		u.Config = before.Config
	}
	if u.Type == "local" {
		if len(s.opts.BackendConfig) > 0 {
			return u, set, errors.New(`--backend-config: the definition's backend is "local", which is told all in its block`)
		}
		u.Config = nil
		u.Path = localstore.DefaultPath(s.abs)
		if p := b.Settings["path"]; p != "" {
			if u.Path = p; !filepath.IsAbs(p) {
				u.Path = filepath.Join(s.abs, p)
			}
		}
		return u, set, nil
	}
	for name := range s.opts.BackendConfig {
		if !lang.BackendSetting(u.Type, name) {
			return u, set, fmt.Errorf("--backend-config: there is no setting %q of backend %q", name, u.Type)
		}
	}
	u.Settings = b.Settings
	set, u.Address, err = s.elsewhere(u)
	if before != nil && before.same(u) && !s.opts.Reconfigure {
		u.Lineage = before.Lineage
	}
	return u, set, err
}

// storeAt opens what a backend has.
func (s *Session) storeAt(u *used, set elsewhere) (statefile.Store, error) {
	if u.Type == "local" {
		return localstore.Open(u.Path, localstore.Options{Program: s.opts.Version, Keys: s.keys, Decrypt: s.opts.Decrypt,
			ReadSealed: s.Diags.HasErrors()}) // what the definition says may be in what can't be read of it
	}
	if u.Type == "git" {
		return gitstore.Open(set.git, gitstore.Options{Program: s.opts.Version, Keys: s.keys, Dir: s.dataDir()})
	}
	return httpstore.Open(set.http, httpstore.Options{Program: s.opts.Version, Keys: s.keys, Dir: s.dataDir()})
}

// openStore opens the state's place. Where that is not known to be the right one,
// every look at the state says why.
func (s *Session) openStore() error {
	before, err := s.recorded()
	if err != nil && !s.opts.Reconfigure {
		s.Store = &nowhere{path: "?", why: err}
		return nil
	}
	now, set, err := s.defined(before)
	remote := now.Type != "local" || before != nil && before.Type != "local"
	var changed error
	var found []statefile.Store
	switch {
	case s.opts.Init || !remote && !s.leftBehind(before, now):
	case s.Diags.HasErrors() && s.backend() == nil:
		changed = &view.Hint{Err: fmt.Errorf("the state lies at %s, and the definition, which would say how, can't be read", before.where()), Hint: "clusterplan validate shows its errors."}
	case before == nil && remote:
		changed = &view.Hint{Err: fmt.Errorf("the backend %q at %s is not set up in this directory", now.Type, now.where()), Hint: "Run clusterplan init; with --migrate-state where a state is to be brought there."}
	default:
		if before == nil {
			before = &used{Type: "local", Path: localstore.DefaultPath(s.abs)}
		}
		if before.same(now) {
			break
		}
		changed = &view.Hint{Err: fmt.Errorf("the backend has changed: the state lies at %s (%s), and the definition says %s (%s)", before.where(), before.Type, now.where(), now.Type),
			Hint: "clusterplan init --migrate-state brings the state there; init --reconfigure uses what is there already. Or put the backend block back."}
	}
	if err == nil && changed != nil {
		err, found = changed, s.eitherStore(before, now, set)
	}
	if err == nil {
		if s.Store, err = s.storeAt(now, set); err != nil && now.Type == "local" {
			return err
		}
		s.used = now
	}
	if err != nil {
		s.Store = &nowhere{now.where(), err, found}
	}
	return nil
}

// leftBehind tells whether a state would be forgotten because the definition names
// another file now, which is not there.
func (s *Session) leftBehind(before, now *used) bool {
	if before == nil {
		before = &used{Type: "local", Path: localstore.DefaultPath(s.abs)}
	}
	return !before.same(now) && before.Type == "local" && now.Type == "local" && now.Path != "" && begunAt(before.Path) && !begunAt(now.Path)
}

// begunAt tells whether a state, or the first apply's journal, is in this place.
func begunAt(path string) bool {
	for _, name := range []string{path, path + ".journal"} {
		if _, err := os.Lstat(name); err == nil {
			return true
		}
	}
	return false
}

// eitherStore is what can be opened of the backends before and after a change: an
// init --migrate-state that was killed has left its locks in either.
func (s *Session) eitherStore(before, now *used, set elsewhere) (found []statefile.Store) {
	if before == nil {
		before = &used{Type: "local", Path: localstore.DefaultPath(s.abs)}
	}
	if st, err := s.storeAt(now, set); err == nil && st.Begun() {
		found = append(found, st)
	}
	if st, err := s.storeBefore(before); err == nil && st.Begun() {
		found = append(found, st)
	}
	return found
}

// nowhere is the place of a state that can't be used, and why.
type nowhere struct {
	path   string
	why    error
	locked []statefile.Store // whose locks can be broken
}

func (n *nowhere) Path() string                                      { return n.path }
func (n *nowhere) Begun() bool                                       { return true }
func (n *nowhere) Read(context.Context) (*statefile.Snapshot, error) { return nil, n.why }
func (n *nowhere) Lock(context.Context, statefile.LockRequest) (statefile.Lock, error) {
	return nil, n.why
}
func (n *nowhere) InPlain() []string { return nil }

// ForceUnlock breaks the lock where it is: the id says which is meant.
func (n *nowhere) ForceUnlock(ctx context.Context, id string) (*statefile.LockInfo, error) {
	err := n.why
	for _, st := range n.locked {
		h, failed := st.ForceUnlock(ctx, id)
		if failed == nil {
			return h, nil
		}
		err = errors.Join(failed, err)
	}
	return nil, err
}

// setBackend has the directory use the definition's backend from now on, and with
// Options.Migrate brings the state there. It says what it did.
func (s *Session) setBackend(ctx context.Context) (said []string, err error) {
	before, err := s.recorded()
	if err != nil && !s.opts.Reconfigure {
		return nil, err
	}
	if before == nil {
		before = &used{Type: "local", Path: localstore.DefaultPath(s.abs)}
	}
	now, set, err := s.defined(before)
	if err != nil {
		return nil, err
	}
	if s.Store, err = s.storeAt(now, set); err != nil {
		return nil, err
	}
	if now.same(before) || s.opts.Reconfigure {
		return nil, s.keepRecord(now)
	}
	from, err := s.storeBefore(before)
	if err != nil {
		return nil, err
	}
	if before.Lineage != "" {
		snap, err := from.Read(ctx)
		if err == nil {
			err = before.expects(snap.State.Lineage)
		}
		if err != nil {
			return nil, interrupted(ctx, err)
		}
	}
	if !s.opts.Migrate {
		snap, err := from.Read(ctx)
		if err == nil && now.Type == before.Type && now.Type == "local" && snap.State.Lineage != "" {
			// Of two files the one that the definition names is used, if it has a state.
			if there, err := s.Store.Read(ctx); err != nil || there.State.Lineage != "" {
				return nil, errors.Join(err, s.keepRecord(now))
			}
		}
		if err != nil || snap.State.Lineage != "" {
			return nil, errors.Join(err, &view.Hint{Err: fmt.Errorf("the backend has changed: there is a state at %s (%s), and the definition says %s (%s)", before.where(), before.Type, now.where(), now.Type),
				Hint: "init --migrate-state brings the state there; init --reconfigure leaves it, and uses what is there."})
		}
		return nil, s.keepRecord(now)
	}
	return s.migrate(ctx, from, s.Store, func() error { return s.keepRecord(now) })
}

// broughtAway is an error where the state was brought elsewhere since this session
// looked where it lies: while it waited for the lock, for example.
func (s *Session) broughtAway() error {
	if s.used == nil || s.opts.Init {
		return nil
	}
	now, err := s.recorded()
	if err != nil {
		return err
	}
	if now == nil {
		now = &used{Type: "local", Path: localstore.DefaultPath(s.abs)}
	}
	if now.Type == s.used.Type && now.Address == s.used.Address {
		return nil
	}
	return &view.Hint{Err: fmt.Errorf("the state was brought from %s to %s (%s) meanwhile", s.used.where(), now.where(), now.Type),
		Hint: "Nothing was changed. Run the command again: it reads the definition as it is now."}
}

// expected refuses a state elsewhere that is gone, or another cluster's, where one was
// seen before: as if there were none, everything would be made a second time.
func (s *Session) expected(lineage string) error {
	if s.used == nil {
		return nil
	}
	return s.used.expects(lineage)
}

func (u *used) expects(lineage string) error {
	if u.Type == "local" || u.Lineage == "" || u.Lineage == lineage {
		return nil
	}
	err := fmt.Errorf("the state is gone: %s had one of lineage %s, and has none now", u.where(), u.Lineage)
	if lineage != "" {
		err = fmt.Errorf("%w: %s had a state of lineage %s, and has one of %s now", statefile.ErrLineage, u.where(), u.Lineage, lineage)
	}
	return &view.Hint{Err: err, Hint: "Nothing was changed. Put back what was there: a version that the server has kept, or a backup, with clusterplan state push. If it is meant to be so: clusterplan init --reconfigure."}
}

// remember records which state lies elsewhere. It is for a later look: that it can't
// be written is no reason to go no further.
func (s *Session) remember(lineage string) {
	if s.used == nil || s.used.Type == "local" || lineage == "" || s.used.Lineage == lineage {
		return
	}
	if before, err := s.recorded(); err == nil && before != nil && before.same(s.used) {
		before.Lineage, s.used.Lineage = lineage, lineage
		_ = s.setRecord(before)
	}
}

// keepRecord: without one the state lies at its default place.
func (s *Session) keepRecord(u *used) error {
	if u.Type == "local" && u.Path == localstore.DefaultPath(s.abs) {
		if err := os.Remove(s.record()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return s.setRecord(u)
}

// recordLocal has it known where a state lies that is not at its default place: a
// definition that says another backend one day has it brought there.
func (s *Session) recordLocal() error {
	before, err := s.recorded()
	if _, not := s.Store.(*nowhere); not || s.opts.Init || err != nil || before != nil && before.Type != "local" {
		return nil // init's to mend
	}
	b := s.backend()
	if b != nil && b.Type != "local" {
		return nil
	}
	now, _, err := s.defined(before)
	if err != nil || before != nil && before.same(now) {
		return err
	}
	return s.keepRecord(now)
}

// storeBefore opens the backend that was used until now.
func (s *Session) storeBefore(u *used) (statefile.Store, error) {
	if u.Type == "local" {
		return s.storeAt(u, elsewhere{})
	}
	if !s.keys.Seals() {
		return nil, &view.Hint{Err: errors.New("the state that is to be brought here is encrypted, and the definition has no encryption block any more"),
			Hint: "Put the block back for clusterplan init --migrate-state; then take it out, and init --decrypt-state."}
	}
	set, address, err := s.elsewhere(u)
	if err != nil {
		return nil, fmt.Errorf("the backend that was used until now: %w", err)
	}
	if address != u.Address {
		is := &used{Type: u.Type, Address: address}
		return nil, fmt.Errorf("the backend that was used until now lay at %s, and the environment (CLUSTERPLAN_%s_...), or the repository's remote, says %s; set it to the former", u.where(), strings.ToUpper(u.Type), is.where())
	}
	return s.storeAt(u, set)
}

// migrate writes the state of one store to another, under the locks of both, and
// has done say so before either is given back.
func (s *Session) migrate(ctx context.Context, from, to statefile.Store, done func() error) ([]string, error) {
	if err := s.keys.Check(); err != nil {
		return nil, unwritten(err)
	}
	source, err := s.lockOf(ctx, from, "init", 0)
	if err != nil {
		return nil, err
	}
	defer source.Release()
	snap, err := s.settled(ctx, source)
	if err != nil {
		return nil, err
	}
	if snap.State.Lineage == "" {
		return nil, &view.Hint{Err: fmt.Errorf("there is no state at %s, where it would be brought from", from.Path()),
			Hint: "Nothing was changed. If it lies in another file: write that back as the path of a backend \"local\" block, clusterplan init, and then change the backend. If there is none yet: clusterplan init without --migrate-state. To use what is there already: --reconfigure."}
	}
	target, err := s.lockOf(ctx, to, "init", 0)
	if err != nil {
		return nil, err
	}
	defer target.Release()
	there, err := s.settled(ctx, target)
	if err != nil {
		return nil, err
	}
	same, err := sameBut(&there.State, &snap.State)
	if err != nil {
		return nil, err
	}
	switch {
	case there.State.Lineage == "":
	case there.State.Lineage != snap.State.Lineage:
		return nil, &view.Hint{Err: fmt.Errorf("%s has a state of another cluster already (lineage %s, %d objects), and %s has lineage %s", to.Path(), there.State.Lineage, len(there.State.Objects), from.Path(), snap.State.Lineage),
			Hint: "Nothing was changed. Name another place in the backend block."}
	case same && there.State.Serial == snap.State.Serial+1: // an earlier try was cut off before it was recorded
		return brought(from, to, there), done()
	case there.State.Serial > snap.State.Serial:
		return nil, &view.Hint{Err: fmt.Errorf("%s has serial %d of this state, and %s has %d: it is newer", to.Path(), there.State.Serial, from.Path(), snap.State.Serial),
			Hint: "Nothing was changed. If it was brought there before, use it: clusterplan init --reconfigure."}
	case !same && there.State.Serial == snap.State.Serial:
		return nil, &view.Hint{Err: fmt.Errorf("%s and %s both have serial %d of this state, and differ: each was changed without the other", to.Path(), from.Path(), snap.State.Serial),
			Hint: "Nothing was changed. To use what is there: clusterplan init --reconfigure. To use the one that is to be brought: that too, and then clusterplan state push --force what clusterplan state pull prints of it before."}
	}
	if _, err := target.Keep(ctx); err != nil {
		return nil, err
	}
	if err := target.Replace(snap.State); err != nil {
		return nil, err
	}
	got, err := target.Read(context.WithoutCancel(ctx))
	if err == nil && (got.State.Lineage != snap.State.Lineage || len(got.State.Objects) != len(snap.State.Objects)) {
		err = errors.New("it is not what was written")
	}
	if err != nil {
		return nil, fmt.Errorf("the state at %s can't be read again: %w; the one at %s is still used", to.Path(), err, from.Path())
	}
	return brought(from, to, got), done()
}

func brought(from, to statefile.Store, got *statefile.Snapshot) []string {
	return []string{fmt.Sprintf("The state (serial %d, %d objects) lies at %s now. The one at %s is not used any more; remove it when you need it no longer.",
		got.State.Serial, len(got.State.Objects), to.Path(), from.Path())}
}

// sameBut tells whether two states say the same, whatever their serials.
func sameBut(one, other *statefile.State) (bool, error) {
	a, b := *one, *other
	a.Serial, a.Program = b.Serial, b.Program
	x, err := statefile.Marshal(&a)
	if err != nil {
		return false, err
	}
	y, err := statefile.Marshal(&b)
	return string(x) == string(y), err
}

// ParseBackendConfig reads one k=v of --backend-config.
func ParseBackendConfig(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, one := range list {
		k, v, ok := strings.Cut(one, "=")
		if !ok {
			return nil, fmt.Errorf("--backend-config %q: write NAME=VALUE", one)
		}
		if k == "password" {
			return nil, fmt.Errorf("--backend-config password: it would be kept in a file; set %sPASSWORD or %sPASSWORD", httpstore.EnvPrefix, gitstore.EnvPrefix)
		}
		if u, err := url.Parse(v); err == nil && u.User != nil {
			if _, secret := u.User.Password(); secret {
				return nil, fmt.Errorf("--backend-config %s: there is a password in the URL, which would be kept in a file; set %sPASSWORD or %sPASSWORD", k, httpstore.EnvPrefix, gitstore.EnvPrefix)
			}
		}
		out[k] = v
	}
	return out, nil
}
