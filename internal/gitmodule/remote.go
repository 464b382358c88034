package gitmodule

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/clusterplan/clusterplan/internal/gitremote"
	"github.com/clusterplan/clusterplan/internal/revision"
)

// errGone: the repository doesn't have the commit any more.
var errGone = errors.New("the repository does not have that commit any more")

// repository is where commits come from.
type repository interface {
	// refs are its refs by their full names; of an annotated tag also the
	// commit, by the name with ^{} behind.
	refs(context.Context) (map[string]string, error)
	// tree is a commit's. scratch is a directory for what it needs meanwhile.
	tree(ctx context.Context, commit, scratch string) (*revision.Tree, error)
}

func open(s Source) (repository, error) {
	if dir := s.local(); dir != "" {
		repo, err := revision.OpenAt(dir)
		if errors.Is(err, revision.ErrNone) {
			return nil, fmt.Errorf("there is no git repository %s. Name one that is there, by its working tree or, if it is bare, by itself", dir)
		}
		if err != nil {
			return nil, fmt.Errorf("open the git repository %s: %w", dir, err)
		}
		return local{repo}, nil
	}
	auth, err := gitremote.Auth(s.URL, "")
	if err != nil {
		return nil, err
	}
	return &remote{url: s.URL, auth: auth}, nil
}

// local is a repository on this machine, which is read as it lies there.
type local struct{ repo *revision.Repo }

func (l local) refs(context.Context) (map[string]string, error) {
	refs, err := l.repo.Refs()
	if err != nil {
		return nil, err
	}
	for name, hash := range refs {
		if strings.HasPrefix(name, "refs/tags/") {
			if at, err := l.repo.Commit(hash); err == nil && at.Hash != hash {
				refs[name+peeled] = at.Hash
			}
		}
	}
	return refs, nil
}

func (l local) tree(_ context.Context, commit, _ string) (*revision.Tree, error) {
	t, err := l.repo.Tree(commit, ".")
	if errors.Is(err, revision.ErrMissing) {
		err = errGone
	}
	return t, err
}

const peeled = "^{}"

// remote is a repository behind a network.
type remote struct {
	url   string
	auth  transport.AuthMethod
	known map[string]string
}

func (r *remote) refs(ctx context.Context) (map[string]string, error) {
	if r.known != nil {
		return r.known, nil
	}
	list, err := gitremote.Until(ctx, func() ([]*plumbing.Reference, error) {
		return git.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{r.url}}).
			ListContext(ctx, &git.ListOptions{Auth: r.auth, PeelingOption: git.AppendPeeled})
	})
	if err != nil {
		return nil, r.explain(ctx, err)
	}
	found := map[string]string{}
	for _, ref := range list {
		if ref.Type() == plumbing.HashReference {
			found[ref.Name().String()] = ref.Hash().String()
		}
	}
	for _, ref := range list {
		if hash, ok := found[ref.Target().String()]; ok && ref.Type() == plumbing.SymbolicReference {
			found[ref.Name().String()] = hash
		}
	}
	r.known = found
	return found, nil
}

// tree fetches a commit: by a ref that is at it, or by its name where the
// repository gives commits by that, or with all that its branches and tags have.
func (r *remote) tree(ctx context.Context, commit, scratch string) (*revision.Tree, error) {
	refs, err := r.refs(ctx)
	if err != nil {
		return nil, err
	}
	type attempt struct {
		specs []config.RefSpec
		depth int
	}
	var attempts []attempt
	names := make([]string, 0, len(refs))
	for name := range refs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if full := strings.TrimSuffix(name, peeled); refs[name] == commit && strings.HasPrefix(full, "refs/") {
			attempts = append(attempts, attempt{[]config.RefSpec{config.RefSpec("+" + full + ":refs/heads/it")}, 1})
			break
		}
	}
	attempts = append(attempts,
		attempt{[]config.RefSpec{config.RefSpec(commit + ":refs/heads/it")}, 1},
		attempt{[]config.RefSpec{"+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"}, 0})
	for i, a := range attempts {
		dir := filepath.Join(scratch, fmt.Sprintf("git-%d", i))
		store := filesystem.NewStorage(osfs.New(dir), cache.NewObjectLRUDefault())
		if _, err := git.Init(store, nil); err != nil {
			return nil, err
		}
		// What is given up may write to its directory yet, which the next init sweeps.
		_, err := gitremote.Until(ctx, func() (struct{}, error) {
			return struct{}{}, git.NewRemote(store, &config.RemoteConfig{Name: "origin", URLs: []string{r.url}}).
				FetchContext(ctx, &git.FetchOptions{Auth: r.auth, RefSpecs: a.specs, Depth: a.depth, Tags: git.NoTags})
		})
		if err == nil || errors.Is(err, git.NoErrAlreadyUpToDate) {
			repo, err := revision.OpenAt(dir)
			if err != nil {
				return nil, err
			}
			t, err := repo.Tree(commit, ".")
			if err == nil {
				return t, nil
			}
			if !errors.Is(err, revision.ErrMissing) {
				return nil, err
			}
		} else if ctx.Err() != nil || i == len(attempts)-1 {
			return nil, r.explain(ctx, err)
		} // else the next way; what is wrong with the repository itself that says, too
	}
	return nil, errGone
}

func (r *remote) explain(ctx context.Context, err error) error {
	return gitremote.Explain(ctx, r.url, "", err, "run clusterplan init again")
}
