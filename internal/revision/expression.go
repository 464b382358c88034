package revision

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// Commit is a revision's, with what is told of it.
type Commit struct {
	Hash    string
	Subject string // the first line of its message
}

// Commit finds the commit that an expression of git names: a branch, a tag, a
// hash or the beginning of one, what git describe prints, and from there with ~N
// and ^N to parents (HEAD~2, origin/main^). ErrRevision: there is none.
func (r *Repo) Commit(expression string) (Commit, error) {
	c, err := r.commit(expression)
	if err != nil {
		return Commit{}, fmt.Errorf("revision %q: %w", expression, err)
	}
	subject, _, _ := strings.Cut(strings.TrimSpace(c.Message), "\n")
	return Commit{Hash: c.Hash.String(), Subject: subject}, nil
}

func (r *Repo) commit(expression string) (*object.Commit, error) {
	base, steps, err := parse(expression)
	if err != nil {
		return nil, err
	}
	hash, err := r.named(base)
	if err != nil {
		return nil, err
	}
	c, err := r.peel(hash)
	if err != nil {
		return nil, err
	}
	for _, n := range steps {
		switch {
		case n == 0:
			continue
		case len(c.ParentHashes) == 0:
			return nil, fmt.Errorf("%w: %s has no parent, it is the first commit", ErrRevision, short(c.Hash))
		case n > len(c.ParentHashes):
			return nil, fmt.Errorf("%w: %s has %d parents, not %d", ErrRevision, short(c.Hash), len(c.ParentHashes), n)
		}
		if c, err = object.GetCommit(r.store, c.ParentHashes[n-1]); err != nil {
			return nil, r.explain(err)
		}
	}
	return c, nil
}

const mostSteps = 1_000_000

// parse takes an expression apart: a name, and for each step to a parent which
// one it is. ^0 and ^{commit} are the commit itself.
func parse(expression string) (base string, steps []int, err error) {
	unknown := func(what, instead string) error {
		return fmt.Errorf("%w: %s is not understood; %s", ErrRevision, what, instead)
	}
	switch {
	case expression == "" || strings.HasPrefix(expression, "-"):
		return "", nil, fmt.Errorf("%w: name a branch, a tag or a commit", ErrRevision)
	case strings.Contains(expression, ".."):
		return "", nil, unknown("a range", "name one revision")
	case strings.Contains(expression, "@{"):
		return "", nil, unknown("@{...}", "use the hash that git rev-parse prints for it")
	case strings.Contains(expression, ":"):
		return "", nil, unknown("a path or a message behind :", "name the revision alone")
	}
	at := strings.IndexAny(expression, "~^")
	if at < 0 {
		at = len(expression)
	}
	base = expression[:at]
	for rest := expression[at:]; rest != ""; {
		sign := rest[0]
		rest = rest[1:]
		if strings.HasPrefix(rest, "{") && sign == '^' {
			inside, after, ok := strings.Cut(rest[1:], "}")
			if !ok || inside != "" && inside != "commit" {
				return "", nil, unknown("^"+rest, "use the hash that git rev-parse prints for it")
			}
			rest = after
			continue
		}
		end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
		if end < 0 {
			end = len(rest)
		}
		n := 1
		if end > 0 {
			if n, err = strconv.Atoi(rest[:end]); err != nil || n > mostSteps {
				return "", nil, fmt.Errorf("%w: %s is too far back", ErrRevision, rest[:end])
			}
		}
		if rest = rest[end:]; rest != "" && rest[0] != '~' && rest[0] != '^' {
			return "", nil, unknown(strconv.Quote(rest), "parents are named with ~N and ^N")
		}
		if sign == '^' {
			steps = append(steps, n)
		} else {
			steps = append(steps, slices.Repeat([]int{1}, n)...)
		}
		if len(steps) > mostSteps {
			return "", nil, fmt.Errorf("%w: it is too far back", ErrRevision)
		}
	}
	if base == "" || base == "@" {
		base = "HEAD"
	}
	return base, steps, nil
}

var (
	// Compiled when they are asked for: an agent has no need of them.
	hexName   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{4,40}$`) })
	described = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`-[0-9]+-g([0-9a-f]{4,40})$`) })
)

// named is what a name without steps stands for, in git's order: a whole hash,
// a ref, the beginning of a hash, what git describe prints.
func (r *Repo) named(name string) (plumbing.Hash, error) {
	lower := strings.ToLower(name)
	if len(lower) == 40 && hexName().MatchString(lower) {
		return plumbing.NewHash(lower), nil
	}
	for _, rule := range []string{"%s", "refs/%s", "refs/tags/%s", "refs/heads/%s", "refs/remotes/%s", "refs/remotes/%s/HEAD"} {
		full := fmt.Sprintf(rule, name)
		if rule == "%s" && full != "HEAD" && !strings.HasPrefix(full, "refs/") && !allCaps(full) {
			continue // a file of the repository that is no ref
		}
		hash, err := r.ref(plumbing.ReferenceName(full))
		if err == nil && !hash.IsZero() {
			return hash, nil
		}
		if full == "HEAD" && errors.Is(err, plumbing.ErrReferenceNotFound) {
			return plumbing.ZeroHash, fmt.Errorf("%w: nothing is committed yet", ErrRevision)
		}
	}
	if m := described().FindStringSubmatch(name); m != nil {
		lower = m[1]
	}
	if hexName().MatchString(lower) {
		return r.abbreviated(lower)
	}
	why := "no branch, tag or commit is called so"
	if r.shallow {
		why += "; the clone is shallow and may lack it: git fetch --unshallow --tags"
	} else {
		why += "; git fetch --tags if it is new"
	}
	return plumbing.ZeroHash, fmt.Errorf("%w: %s", ErrRevision, why)
}

func allCaps(name string) bool {
	return strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == ""
}

func (r *Repo) ref(name plumbing.ReferenceName) (plumbing.Hash, error) {
	ref, err := storer.ResolveReference(r.store, name)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return ref.Hash(), nil
}

// abbreviated finds the one commit whose hash begins so.
func (r *Repo) abbreviated(prefix string) (plumbing.Hash, error) {
	even := prefix[:len(prefix)/2*2]
	all, err := r.store.HashesWithPrefix(unhex(even))
	if err != nil {
		return plumbing.ZeroHash, err
	}
	var found []plumbing.Hash
	for _, h := range all {
		if !strings.HasPrefix(h.String(), prefix) || slices.Contains(found, h) {
			continue
		}
		if _, err := r.peel(h); err == nil {
			found = append(found, h)
		}
	}
	switch len(found) {
	case 0:
		return plumbing.ZeroHash, fmt.Errorf("%w: no commit's hash begins so", ErrRevision)
	case 1:
		return found[0], nil
	}
	return plumbing.ZeroHash, fmt.Errorf("%w: it is the beginning of %d commits' hashes; give more of it", ErrRevision, len(found))
}

func unhex(text string) []byte {
	out := make([]byte, len(text)/2)
	for i := range out {
		n, _ := strconv.ParseUint(text[2*i:2*i+2], 16, 8)
		out[i] = byte(n)
	}
	return out
}

// peel follows tags to the commit.
func (r *Repo) peel(hash plumbing.Hash) (*object.Commit, error) {
	for range 10 {
		o, err := object.GetObject(r.store, hash)
		if err != nil {
			return nil, r.explain(err)
		}
		switch o := o.(type) {
		case *object.Commit:
			return o, nil
		case *object.Tag:
			hash = o.Target
		default:
			return nil, fmt.Errorf("%w: it is a %s, not a commit", ErrRevision, o.Type())
		}
	}
	return nil, fmt.Errorf("%w: its tags name one another", ErrRevision)
}

func short(h plumbing.Hash) string { return h.String()[:12] }
