package gitmodule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"

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
	auth, err := authOf(s)
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
	list, err := git.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{r.url}}).
		ListContext(ctx, &git.ListOptions{Auth: r.auth, PeelingOption: git.AppendPeeled})
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
		err := git.NewRemote(store, &config.RemoteConfig{Name: "origin", URLs: []string{r.url}}).
			FetchContext(ctx, &git.FetchOptions{Auth: r.auth, RefSpecs: a.specs, Depth: a.depth, Tags: git.NoTags})
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

// explain says what to do about an error of a transport.
func (r *remote) explain(ctx context.Context, err error) error {
	isSSH := !strings.HasPrefix(r.url, "http")
	credentials := "Check what ~/.netrc (or the file that $NETRC names) says for this host: machine HOST login NAME password TOKEN"
	if isSSH {
		credentials = "Check that your key may read it: ssh-add -l lists the agent's, without an agent it is ~/.ssh/id_ed25519, id_ecdsa or id_rsa, without a passphrase"
	} else if strings.HasPrefix(r.url, "http:") {
		credentials = "Over http nobody is told a password: use https"
	}
	text := err.Error()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("there is no repository %s, or it is not for you to see. Check the URL; if that is right: %s", r.url, lower(credentials))
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return fmt.Errorf("the repository %s has no commit yet. Push one, or name another repository", r.url)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed),
		strings.Contains(text, "unable to authenticate"), strings.Contains(text, "invalid auth method"):
		return fmt.Errorf("%s refuses to be read: %s. %s", r.url, line(text), credentials)
	case strings.Contains(text, "knownhosts:"), strings.Contains(text, "known_hosts"):
		return fmt.Errorf("the host of %s is not the one that ~/.ssh/known_hosts knows: %s. If it is the right one, add its key there: ssh-keyscan HOST, compared with what its owner publishes", r.url, line(text))
	}
	return fmt.Errorf("%s can't be read: %s. Check the URL and the network; then run clusterplan init again", r.url, line(text))
}

func lower(text string) string { return strings.ToLower(text[:1]) + text[1:] }

// line is an error's text as a part of a sentence.
func line(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if text = strings.Join(strings.Fields(text), " "); len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return strings.TrimRight(text, ".: ")
}

// authOf is how a repository is told who reads it: ~/.netrc's password for the
// host over https, a key over ssh. nil: nobody.
func authOf(s Source) (transport.AuthMethod, error) {
	if u, err := url.Parse(s.URL); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		if u.Scheme == "http" {
			return nil, nil // a password is not for everybody on the way
		}
		login, password, err := netrc(u.Hostname(), u.User.Username())
		if err != nil || password == "" {
			return nil, err
		}
		return &http.BasicAuth{Username: login, Password: password}, nil
	}
	end, err := transport.NewEndpoint(s.URL)
	if err != nil {
		return nil, fmt.Errorf("%q is no URL of a repository: %w", s.URL, err)
	}
	user := end.User
	if user == "" {
		user = "git"
	}
	if os.Getenv("SSH_AUTH_SOCK") != "" {
		auth, err := ssh.NewSSHAgentAuth(user)
		if err != nil {
			return nil, fmt.Errorf("the SSH agent that $SSH_AUTH_SOCK names doesn't answer: %w. Start it, or unset the variable, and the keys of ~/.ssh are used", err)
		}
		return auth, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("look for an SSH key: %w", err)
	}
	var why error
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		auth, err := ssh.NewPublicKeysFromFile(user, filepath.Join(home, ".ssh", name), "")
		if err == nil {
			return auth, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			why = fmt.Errorf(" (%s: %w)", name, err)
		}
	}
	text := ""
	if why != nil {
		text = why.Error()
	}
	return nil, fmt.Errorf("there is no SSH key to read %s with%s. Start an SSH agent that has one (ssh-agent, ssh-add), or put one without a passphrase at ~/.ssh/id_ed25519", s.URL, text)
}

// netrc is the login and password for a host, and for a login if one is given.
func netrc(host, login string) (string, string, error) {
	name := os.Getenv("NETRC")
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", "", nil
		}
		name = filepath.Join(home, ".netrc")
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read the passwords for hosts: %w", err)
	}
	defer f.Close()
	var words []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		text := strings.TrimSpace(lines.Text())
		if !strings.HasPrefix(text, "#") {
			words = append(words, strings.Fields(text)...)
		}
	}
	type entry struct{ host, login, password string }
	var all []entry
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "default":
			all = append(all, entry{})
			continue
		case "machine":
			all = append(all, entry{host: value})
		case "login":
			if len(all) > 0 {
				all[len(all)-1].login = value
			}
		case "password":
			if len(all) > 0 {
				all[len(all)-1].password = value
			}
		default:
			continue
		}
		i++
	}
	for _, e := range all {
		if e.host == host && (login == "" || login == e.login) { // "default" would give one host's password to any
			return e.login, e.password, nil
		}
	}
	return "", "", nil
}
