package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// submit has a command committed, or says as an *client.Error why not.
func (s *server) submit(ctx context.Context, cmd confdb.Command) (confdb.Result, error) {
	wait, cancel := context.WithTimeout(ctx, commitWithin)
	defer cancel()
	r, err := s.b.Submit(wait, cmd)
	if err != nil {
		return r, sent(cmd, s.undone(ctx, err))
	}
	switch r.Code {
	case "":
		return r, nil
	case "unknown":
		return r, sent(cmd, s.refused(ctx, r, cmd))
	}
	return r, s.refused(ctx, r, cmd)
}

// sent marks the error of a write that may lie in a log already: also without a
// quorum it may be done, once there is one again.
func sent(cmd confdb.Command, err error) error {
	var e *client.Error
	if !cmd.Nothing && errors.As(err, &e) {
		e.Unknown = true
		if e.Code != "unknown_outcome" {
			e.Message += "; the write may still be done"
		}
	}
	return err
}

// commit is submit, then the answer.
func (s *server) commit(c *call, cmd confdb.Command) error {
	r, err := s.submit(c.ctx, cmd)
	if err != nil {
		return err
	}
	return s.done(c, r.Revision)
}

// membership has the membership changed, or says why not.
func (s *server) membership(ctx context.Context, m member.Membership) error {
	wait, cancel := context.WithTimeout(ctx, commitWithin)
	defer cancel()
	for {
		r, err := s.b.Membership(wait, m)
		switch {
		case err != nil:
			return s.undone(ctx, err)
		case r.Code == "":
			return nil
		case r.Code != "busy":
			return s.refused(ctx, r, confdb.Command{})
		}
		select { // one change at a time: the last one may just be ending
		case <-time.After(pauseBetween):
		case <-wait.Done():
			return busy(r.Detail)
		}
	}
}

// revote is membership for who votes. It is done once something has been committed after
// it: then so many know of it that are a majority by it, should all be killed now.
func (s *server) revote(ctx context.Context, m member.Membership) error {
	if err := s.membership(ctx, m); err != nil {
		return err
	}
	_, err := s.submit(ctx, confdb.Command{ID: newID(), Time: time.Now().UTC(), Nothing: true})
	return err
}

// undone is what is known of a write whose end this node did not see.
func (s *server) undone(ctx context.Context, err error) error {
	if errors.Is(err, agent.ErrStopping) {
		return stopping(err)
	}
	quorum := false
	_ = s.b.Read(ctx, func(_ *confdb.State, st member.Status) { quorum = st.Quorum })
	if !quorum {
		return s.noQuorum(ctx)
	}
	if why := s.b.Facts().Trouble; why != "" {
		return &client.Error{Status: http.StatusServiceUnavailable, Code: "unknown_outcome",
			Message: "the database can't be written now: " + why,
			Hint:    "it is tried again until it works, and the write may still be done: send it again with the same " + client.HeaderCommand}
	}
	return &client.Error{Status: http.StatusServiceUnavailable, Code: "unknown_outcome",
		Message: "the write was not seen committed within " + commitWithin.String() + "; it may still be",
		Hint:    "send it again with the same " + client.HeaderCommand + ": it is done once"}
}

func (s *server) noQuorum(ctx context.Context) *client.Error {
	e := &client.Error{Status: http.StatusServiceUnavailable, Code: "no_quorum",
		Message: "the cluster has no quorum or no leader here now",
		Hint:    "see which nodes are up (clusterplan status) and start those that are not (clusterplan apply)"}
	_ = s.b.Read(ctx, func(st *confdb.State, ms member.Status) {
		if p := ms.Driver.DeviceProblem; p != "" {
			e.Message += ": " + p
			e.Hint = "see that the device answers on the nodes that are up (clusterplan status)"
		}
		if n, ok := st.Nodes[ms.LeaderNode]; ok && ms.LeaderNode != s.b.Facts().NodeID {
			e.Leader = n.Endpoint
		}
	})
	return e
}

// refused turns the code of cmd's result into an answer.
func (s *server) refused(ctx context.Context, r confdb.Result, cmd confdb.Command) error {
	switch r.Code {
	case confdb.CodeConflict:
		if cmd.IfMatch != 0 {
			return &client.Error{Status: http.StatusPreconditionFailed, Code: "precondition", Message: r.Detail,
				Hint: "the configuration has changed meanwhile; read it again (plan again)"}
		}
		return &client.Error{Status: http.StatusConflict, Code: "conflict", Message: r.Detail}
	case confdb.CodeMismatch:
		return &client.Error{Status: http.StatusPreconditionFailed, Code: "precondition", Message: r.Detail, Hint: "read the key again"}
	case confdb.CodeFenced:
		return &client.Error{Status: http.StatusConflict, Code: "fenced", Message: r.Detail, Hint: "stop: another node may run the group by now"}
	case confdb.CodeLimit:
		return tooLarge(r.Detail)
	case confdb.CodeLocked:
		if cmd.Change != "" || cmd.TakeChange != nil && cmd.TakeChange.Renew {
			return over(r.Detail)
		}
		return locked(r.Detail)
	case confdb.CodeStale:
		return &client.Error{Status: http.StatusConflict, Code: "stale", Message: r.Detail}
	case confdb.CodeNotFound:
		return &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: r.Detail}
	case confdb.CodeInvalid:
		return &client.Error{Status: http.StatusBadRequest, Code: "bad_request", Message: r.Detail}
	case "no_leader":
		return s.noQuorum(ctx)
	case "not_leader":
		e := s.noQuorum(ctx)
		if e.Leader != "" {
			e.Status, e.Code = http.StatusMisdirectedRequest, "not_leader"
			e.Message, e.Hint = "the membership is changed at the leader, which is another node", "ask "+e.Leader
		}
		return e
	case "busy":
		return busy(r.Detail)
	case "unknown":
		return &client.Error{Status: http.StatusServiceUnavailable, Code: "unknown_outcome",
			Message: r.Detail,
			Hint:    "send it again with the same " + client.HeaderCommand + ": it is done once"}
	}
	return &client.Error{Status: http.StatusInternalServerError, Code: "internal", Message: r.Code + ": " + r.Detail}
}

func busy(detail string) *client.Error {
	if detail == "" {
		detail = "another change of the membership is under way"
	}
	return &client.Error{Status: http.StatusServiceUnavailable, Code: "busy", Message: detail, Hint: "try again in a moment"}
}

// pauseBetween is how long a handler waits before it looks again.
const pauseBetween = 20 * time.Millisecond

// until looks every pauseBetween, or at the state's next update, whether ok,
// for commitWithin.
func (s *server) until(ctx context.Context, ok func(*confdb.State, member.Status) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, commitWithin)
	defer cancel()
	for {
		changed := s.b.Changed()
		good := false
		if s.b.Read(ctx, func(st *confdb.State, ms member.Status) { good = ok(st, ms) }) != nil {
			return false
		}
		if good {
			return true
		}
		select {
		case <-changed:
		case <-time.After(pauseBetween):
		case <-ctx.Done():
			return false
		}
	}
}
