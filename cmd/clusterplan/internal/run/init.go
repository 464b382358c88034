package run

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/gitmodule"
)

// InitOptions say how Init goes about modules from git.
type InitOptions struct {
	Upgrade bool // takes refs anew
}

// Init makes a definition's directory ready for an apply: modules from git are
// fetched and locked, and the state can be written. With o.Ref only the modules of
// that revision are fetched. It says what it did. The session is nil only where
// the directory can't be opened at all.
func Init(ctx context.Context, dir string, o Options, how InitOptions) (s *Session, said []string, err error) {
	if s, err = at(dir, o); err != nil {
		return nil, nil, err
	}
	fsys, err := s.files()
	if err != nil {
		return s, nil, err
	}
	f := &gitmodule.Fetcher{Dir: dir, Upgrade: how.Upgrade, Fixed: o.Ref != "", Prepare: s.ownDir}
	s.fetch = func(source gitmodule.Source) (gitmodule.Locked, error) {
		if f.Lock == nil { // a definition without such modules needs no lock file
			lock, err := gitmodule.ReadLock(fsys)
			if err != nil {
				return gitmodule.Locked{}, err
			}
			f.Lock = lock
		}
		return f.Get(ctx, source)
	}
	err = errors.Join(s.load(fsys, dir, os.Environ()), f.Close())
	if err == nil && ctx.Err() != nil {
		return s, f.Said(), ErrInterrupted
	}
	if err == nil {
		err = s.saveLock(f, fsys)
	}
	said = f.Said()
	if err == nil {
		err = s.Check()
	}
	if err != nil || o.Ref != "" {
		return s, said, err
	}
	more, err := s.Init(ctx)
	return s, append(said, more...), err
}

// saveLock writes the lock file. One that the definition has no use for, and that
// can't be read, is left alone.
func (s *Session) saveLock(f *gitmodule.Fetcher, root fs.FS) error {
	whole := !s.Diags.HasErrors()
	if f.Lock == nil {
		lock, err := gitmodule.ReadLock(root)
		if err != nil || !whole {
			return nil
		}
		f.Lock = lock
	}
	if err := f.Save(whole); err != nil {
		return &view.Hint{Err: err, Hint: "It lies beside the definition. Let clusterplan init write there, or run it where it can, and copy the file."}
	}
	return nil
}
