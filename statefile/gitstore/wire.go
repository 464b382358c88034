package gitstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/clusterplan/clusterplan/internal/gitremote"
	"github.com/clusterplan/clusterplan/statefile"
)

// errMoved: the ref is not at the commit that a push named.
var errMoved = errors.New("somebody else changed the ref")

// declined is a push that the repository has looked at and does not take.
type declined struct {
	status string // as git's protocol has it
	words  string // of the server's own, as of its hooks
}

func (d *declined) Error() string {
	if d.words == "" {
		return d.status
	}
	return d.status + "; it says: " + d.words
}

// passing tells whether the next try may fare better: somebody else was at the ref,
// or the server had no room.
func (d *declined) passing() bool {
	for _, text := range []string{"lock", "failed to update ref", "already exists", "unpack", "failed to write"} {
		if strings.Contains(d.status, text) {
			return true
		}
	}
	return false
}

// said collects what a server says while it takes a push, up to a bound.
type said struct{ text []byte }

func (s *said) Write(p []byte) (int, error) {
	s.text = append(s.text, p[:min(len(p), 4096-len(s.text))]...)
	return len(p), nil
}

// identity is what the repository is told.
func (s *Store) identity() (transport.AuthMethod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.auth != nil {
		return own(s.auth), nil
	}
	address := s.set.Repository
	if web := strings.HasPrefix(address, "http"); web && s.set.Password != "" {
		s.auth = &githttp.BasicAuth{Username: s.set.Username, Password: s.set.Password}
		return s.auth, nil
	} else if web && s.set.Username != "" { // ~/.netrc has its password
		address = strings.Replace(address, "://", "://"+s.set.Username+"@", 1)
	}
	var err error
	s.auth, err = gitremote.Auth(address, s.set.KeyFile)
	return own(s.auth), err
}

// own is a copy of a login for one connection: dialling writes to it, and one that
// was given up may still be dialling.
func own(auth transport.AuthMethod) transport.AuthMethod {
	switch a := auth.(type) {
	case *gitssh.PublicKeys:
		c := *a
		return &c
	case *gitssh.PublicKeysCallback:
		c := *a
		return &c
	}
	return auth
}

// greet opens a session and reads which refs there are, until ctx ends: an ssh
// client alone would wait for ever. What comes later is closed.
func greet[S transport.Session](ctx context.Context, s *Store, begin func(*transport.Endpoint, transport.AuthMethod) (S, error)) (S, *packp.AdvRefs, error) {
	type greeted struct {
		session S
		refs    *packp.AdvRefs
		err     error
	}
	var none S
	auth, err := s.identity()
	if err != nil {
		return none, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.patience, fmt.Errorf("no answer within %v", s.opts.patience))
	done := make(chan greeted, 1)
	go func() {
		var g greeted
		end := *s.end // the http transport follows a first redirection with it
		if g.session, g.err = begin(&end, auth); g.err == nil {
			if g.refs, g.err = g.session.AdvertisedReferencesContext(ctx); g.err != nil {
				g.session.Close()
			}
		}
		done <- g
	}()
	select {
	case g := <-done:
		defer cancel()
		if g.err != nil && ctx.Err() != nil && !errors.Is(g.err, transport.ErrEmptyRemoteRepository) {
			g.err = context.Cause(ctx)
		}
		return g.session, g.refs, g.err
	case <-ctx.Done():
		go func() {
			if g := <-done; g.err == nil {
				g.session.Close()
			}
			cancel()
		}()
		return none, nil, context.Cause(ctx)
	}
}

// bounded is ctx with an end: all of an exchange has that long.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, 10*s.opts.patience, fmt.Errorf("it takes longer than %v", 10*s.opts.patience))
}

// at is the commit that the ref is at; zero: there is none.
func (s *Store) at(ctx context.Context) (plumbing.Hash, error) {
	session, refs, err := greet(ctx, s, s.client.NewUploadPackSession)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return plumbing.ZeroHash, nil
	}
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return refs.References[s.ref.String()], session.Close()
}

// fetch reads what the ref is at: the newest commit alone.
func (s *Store) fetch(ctx context.Context) (*tip, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	session, refs, err := greet(ctx, s, s.client.NewUploadPackSession)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return new(tip), nil
	}
	if err != nil {
		return nil, err
	}
	defer session.Close()
	commit := refs.References[s.ref.String()]
	if commit.IsZero() {
		return new(tip), nil
	}
	if t := s.seen(nil); t != nil && t.commit == commit {
		return t, nil
	}
	req := packp.NewUploadPackRequestFromCapabilities(refs.Capabilities)
	req.Wants = []plumbing.Hash{commit}
	if refs.Capabilities.Supports(capability.Shallow) {
		req.Depth = packp.DepthCommits(1)
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return nil, err
		}
	}
	answer, err := session.UploadPack(ctx, req)
	if err != nil {
		return nil, because(ctx, err)
	}
	defer answer.Close()
	var pack io.Reader = answer
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, answer)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, answer)
	}
	objects := memory.NewStorage()
	limited := &io.LimitedReader{R: pack, N: statefile.Limit}
	if err := packfile.UpdateObjectStorage(objects, limited); err != nil {
		if limited.N <= 0 {
			return nil, fmt.Errorf("%w: it has more than %d bytes", statefile.ErrDamaged, statefile.Limit)
		}
		return nil, because(ctx, err)
	}
	t, err := readTip(objects, commit)
	if err == nil {
		s.seen(t)
	}
	return t, err
}

// because is why ctx ended, where it did, instead of what that led to.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// seen is the last tip; t is one from now on.
func (s *Store) seen(t *tip) *tip {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t != nil {
		s.last = t
	}
	return s.last
}

// send pushes once. errMoved: it was not done. Another error: nobody knows.
func (s *Store) send(ctx context.Context, old plumbing.Hash, c *change) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	session, refs, err := greet(ctx, s, s.client.NewReceivePackSession)
	if err != nil {
		return err
	}
	defer session.Close()
	if refs.References[s.ref.String()] != old {
		return errMoved
	}
	if !refs.Capabilities.Supports(capability.ReportStatus) {
		return errors.New("it does not say what became of a push (report-status): it can't keep a state")
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(refs.Capabilities)
	req.Commands = []*packp.Command{{Name: s.ref, Old: old, New: c.to.commit}}
	req.Packfile = io.NopCloser(bytes.NewReader(c.pack))
	var words said
	if refs.Capabilities.Supports(capability.Sideband64k) {
		if err := req.Capabilities.Set(capability.Sideband64k); err != nil {
			return err
		}
		req.Progress = &words
	}
	before := c.sent
	c.sent = true
	report, err := session.ReceivePack(ctx, req)
	if err != nil && report != nil && report.Error() != nil {
		status := "unpack: " + report.UnpackStatus
		if report.UnpackStatus == "ok" && len(report.CommandStatuses) > 0 {
			status = report.CommandStatuses[0].Status // of the one command that was sent
		}
		c.sent = before // this one is over
		return &declined{gitremote.Line(status), gitremote.Line(string(words.text))}
	}
	if err == nil && report == nil {
		err = errors.New("it did not say what became of the push")
	}
	return because(ctx, err)
}

// push has the ref go from one tip to another, and says nil once it has. errMoved:
// the ref is elsewhere.
func (s *Store) push(ctx context.Context, from *tip, c *change) error {
	for try := 0; ; try++ {
		err := s.send(ctx, from.commit, c)
		if err == nil {
			s.seen(c.to)
			return nil
		}
		if gitremote.Refused(err) {
			return s.explain(ctx, err)
		}
		now, failed := s.at(ctx)
		var no *declined
		switch {
		case failed == nil && now == c.to.commit:
			s.seen(c.to)
			return nil
		case failed == nil && now != from.commit:
			return errMoved
		case errors.As(err, &no) && (!no.passing() || try == retries):
			return fmt.Errorf("%s does not take the push: %w. It is up to who looks after that repository: have it take pushes to %s of this user, or name another ref in the backend block", s.set.Repository, no, s.ref)
		case errors.Is(err, errMoved): // by another's push that did not come about
			err = errors.New("it says that the ref is elsewhere, and that it is not")
		}
		if failed != nil {
			err = errors.Join(err, failed)
		}
		if try < retries && ctx.Err() == nil {
			if stop := s.opts.pause(ctx, wait(try)); stop == nil {
				continue
			}
		}
		return s.explain(ctx, err)
	}
}
