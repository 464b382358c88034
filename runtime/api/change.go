package api

import (
	"net/http"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// takeChange takes or renews the change lease.
func (s *server) takeChange(c *call) error {
	var t client.TakeChange
	if err := c.body(&t); err != nil {
		return err
	}
	known := false
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) { known = st.Cluster.ID != "" }); err != nil {
		return err
	}
	if !known {
		return s.waiting(c.ctx)
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	if clean(t.ID) != t.ID || clean(t.What) != t.What || len(t.What) > 64 {
		return bad("a change lease has an id and a word for what it is, without control characters")
	}
	cmd.Change = "" // it stands in the body
	cmd.TakeChange = &confdb.TakeChange{ID: t.ID, What: t.What, Term: spec.Duration(t.TermMS) * spec.Duration(time.Millisecond), Renew: t.Renew, From: t.From, Seen: t.Seen}
	return s.commit(c, cmd)
}

// endChange gives the change lease back, or breaks it.
func (s *server) endChange(c *call) error {
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.EndChange = &confdb.EndChange{ID: c.r.PathValue("id")}
	return s.commit(c, cmd)
}

// asHolder refuses, before it does anything, what changes the agreement and is
// not the change lease's holder's: the database refuses its own part of it only.
// Only the leader changes the agreement, and only its copy is surely the newest.
func (s *server) asHolder(fn func(*call) error) func(*call) error {
	return func(c *call) error {
		leads, newest := false, false
		var held *client.Change
		look := func() error {
			return s.read(c.ctx, func(st *confdb.State, ms member.Status) {
				leads, newest = ms.Driver.Role == confdb.Leader, ms.Driver.Ready
				held = changeOf(st)
			})
		}
		err := look()
		if err == nil && leads && !newest {
			// It was just elected: what it does once its copy is the newest is asked now.
			s.until(c.ctx, func(_ *confdb.State, ms member.Status) bool {
				return ms.Driver.Role != confdb.Leader || ms.Driver.Ready
			})
			err = look()
		}
		if err != nil {
			return err
		}
		switch under := clean(c.r.Header.Get(client.HeaderChange)); {
		case leads && !newest:
			return busy("this node was just elected, and doesn't know yet of all that is committed")
		case !leads:
		case held != nil && under == "":
			return locked("the cluster is being changed: " + held.String())
		case under != "" && (held == nil || held.ID != under):
			return over("the change lease " + under + " is over: it was taken over or broken")
		}
		return fn(c)
	}
}

func locked(detail string) *client.Error {
	return &client.Error{Status: http.StatusConflict, Code: client.CodeLocked, Message: detail,
		Hint: "wait until that ends; if it never will: clusterplan force-unlock with its id"}
}

func over(detail string) *client.Error {
	return &client.Error{Status: http.StatusConflict, Code: client.CodeLocked, Message: detail}
}

func changeOf(st *confdb.State) *client.Change {
	h := st.Change
	if h == nil {
		return nil
	}
	return &client.Change{ID: h.ID, Author: h.Author, What: h.What, Since: h.Since, Renewed: h.Renewed, RenewedAt: h.At, TermMS: h.Term.D().Milliseconds()}
}
