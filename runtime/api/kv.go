package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

const (
	listDefault = 100 // entries of an answer, where the caller says no limit
	listMost    = 1000
	listBytes   = 4 << 20 // of values in one answer
)

// barrier makes reads linearizable: a read waits for a commit that was proposed
// after it came in. Reads that come while one is under way share the next one.
type barrier struct {
	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done chan struct{}
	err  error
}

// wait returns once everything that was committed when it was called is applied
// here, or says why that can't be known.
func (s *server) wait(ctx context.Context) error {
	b := &s.barrier
	b.mu.Lock()
	if b.next == nil {
		b.next = &round{done: make(chan struct{})}
	}
	r := b.next
	if !b.running {
		b.running = true
		b.next = nil
		b.mu.Unlock()
		s.runRound(ctx, r)
	} else {
		b.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return s.undone(ctx, ctx.Err())
		}
	}
	return r.err
}

// runRound commits r's barrier, and hands the next round to a goroutine that
// lives for it alone: whoever asked for this one need not wait for it.
func (s *server) runRound(ctx context.Context, r *round) {
	// Others wait for it: it doesn't end because this caller goes away.
	_, r.err = s.submit(context.WithoutCancel(ctx), confdb.Command{ID: newID(), Time: time.Now().UTC(), Nothing: true})
	close(r.done)
	b := &s.barrier
	b.mu.Lock()
	next := b.next
	b.next = nil
	b.running = next != nil
	b.mu.Unlock()
	if next != nil {
		go s.runRound(ctx, next)
	}
}

// space finds the space that a path names, as group id, and checks that the
// caller may read it: an application its own group's and the cluster's.
func (s *server) space(c *call) (string, error) {
	if c.r.PathValue("group") == "" {
		return confdb.ClusterSpace, nil
	}
	id, err := s.groupID(c, c.r.PathValue("group"))
	if err != nil {
		return "", err
	}
	return id, c.ownGroup(id)
}

// ownGroup refuses an application that asks for another group's.
func (c *call) ownGroup(id string) error {
	if c.role == client.RoleApplication && c.group != id {
		return &client.Error{Status: http.StatusForbidden, Code: "forbidden",
			Message: "this socket is for the resources of one group, and this is another one's",
			Hint:    "keep what several groups share under " + client.PathKV + "/cluster, or ask by the node's own socket or with a certificate"}
	}
	return nil
}

// fresh makes the read linearizable, unless the caller asks for less.
func (s *server) fresh(c *call) error {
	if v := c.r.URL.Query().Get("stale"); v == "1" || v == "true" {
		return nil
	}
	known := false
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) { known = st.Cluster.ID != "" }); err != nil {
		return err
	}
	if !known {
		return s.waiting(c.ctx)
	}
	return s.wait(c.ctx)
}

// kvGet answers one value as it is; its revision is the ETag.
func (s *server) kvGet(c *call) error {
	key := c.r.PathValue("key")
	if key == "" {
		return s.kvList(c)
	}
	space, err := s.space(c)
	if err != nil {
		return err
	}
	if err := s.fresh(c); err != nil {
		return err
	}
	var e confdb.KVEntry
	found, where, at := false, "", uint64(0)
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		e, found = st.KV.Lookup(space, key)
		where, at = st.SpaceName(space), st.Revision
	}); err != nil {
		return err
	}
	c.w.Header().Set(client.HeaderRevision, strconv.FormatUint(at, 10))
	if !found {
		return &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("%s has no key %q", where, key)}
	}
	h := c.w.Header()
	h.Set("ETag", fmt.Sprintf("%q", strconv.FormatUint(e.Revision, 10)))
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(e.Value)))
	_, _ = c.w.Write(e.Value)
	return nil
}

// kvList answers the entries of a space, or streams their changes.
func (s *server) kvList(c *call) error {
	space, err := s.space(c)
	if err != nil {
		return err
	}
	prefix, after := c.r.URL.Query().Get("prefix"), c.r.URL.Query().Get("after")
	if strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		return s.kvWatch(c, space, prefix)
	}
	limit, err := number(c.r, "limit")
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = listDefault
	}
	limit = min(limit, listMost)
	if err := s.fresh(c); err != nil {
		return err
	}
	out := client.KVList{FormatVersion: client.FormatVersion, Entries: []client.KVEntry{}}
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		list, more := st.KV.List(space, prefix, after, int(limit))
		out.Revision, out.More = st.Revision, more
		size := 0
		for _, e := range list {
			if size += len(e.Value); size > listBytes && len(out.Entries) > 0 {
				out.More = true
				break
			}
			out.Entries = append(out.Entries, client.KVEntry{Key: e.Key, Value: e.Value, Revision: e.Revision, Created: e.Created})
		}
	}); err != nil {
		return err
	}
	return c.answer(out)
}

// kvWatch streams the changes of a space's keys with a prefix after ?since (now,
// if there is none): for each key that changed what it is now, in the order of
// the changes. What changed twice between two looks is told once.
func (s *server) kvWatch(c *call, space, prefix string) error {
	since, err := number(c.r, "since")
	if err != nil {
		return err
	}
	if last := c.r.Header.Get("Last-Event-ID"); last != "" {
		if since, err = strconv.ParseUint(last, 10, 63); err != nil {
			return bad("Last-Event-ID is %q; it is a revision", last)
		}
	}
	if since == 0 {
		if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) { since = max(st.Revision, 1) }); err != nil {
			return err
		}
	}
	return s.follow(c, since, func(since uint64) (lines []sseLine, next uint64, err error) {
		gone, compacted := false, uint64(0)
		rerr := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
			gone = space != confdb.ClusterSpace && st.Groups[space] == nil
			if next = st.Revision; next < since { // this copy is behind: nothing yet
				next = since
				return
			}
			changes, ok := st.KV.Since(space, prefix, since)
			if !ok {
				compacted = st.KV.Compacted
				return
			}
			for _, ch := range changes {
				e := client.KVEntry{Key: ch.Key, Revision: ch.Revision, Deleted: true}
				if now, there := st.KV.Lookup(space, ch.Key); there {
					e.Value, e.Revision, e.Created, e.Deleted = now.Value, now.Revision, now.Created, false
				}
				lines = append(lines, sseLine{ch.Revision, e})
			}
		})
		switch {
		case rerr != nil:
			return nil, since, rerr
		case compacted > 0:
			return nil, since, &client.Error{Status: http.StatusGone, Code: "compacted",
				Message: fmt.Sprintf("the changes after revision %d are not known any more: those up to %d were forgotten", since, compacted),
				Hint:    "list the keys again, and watch from the list's revision"}
		case gone:
			return nil, since, &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: "the group is gone, and its keys with it"}
		}
		return lines, next, nil
	})
}

// kvPut writes the body as it is; kvDelete deletes.
func (s *server) kvPut(c *call) error {
	value, err := io.ReadAll(io.LimitReader(c.r.Body, confdb.MaxValue+1))
	if err != nil {
		return bad("the request's body can't be read: %v", err)
	}
	if len(value) > confdb.MaxValue {
		return tooLarge(fmt.Sprintf("a value is at most %d KiB", confdb.MaxValue>>10))
	}
	return s.kvWrite(c, confdb.KVWrite{Value: value})
}

func (s *server) kvDelete(c *call) error { return s.kvWrite(c, confdb.KVWrite{Delete: true}) }

func (s *server) kvWrite(c *call, w confdb.KVWrite) error {
	space, err := s.space(c)
	if err != nil {
		return err
	}
	w.Space, w.Key = space, c.r.PathValue("key")
	if why := confdb.CheckKey(w.Key); why != "" {
		return bad("%s", why)
	}
	h := c.r.Header
	match, none := strings.Trim(h.Get(client.HeaderIfMatch), `"`), h.Get(client.HeaderIfNoneMatch)
	switch {
	case match != "" && none != "":
		return bad("%s and %s exclude each other", client.HeaderIfMatch, client.HeaderIfNoneMatch)
	case none == "*":
		w.If = new(uint64)
	case none != "":
		return bad("%s is %q; only * is understood: there is no such key yet", client.HeaderIfNoneMatch, none)
	case match != "":
		n, err := strconv.ParseUint(match, 10, 64)
		if err != nil || n == 0 {
			return bad("%s is %q; it carries the revision of the key, as its ETag says", client.HeaderIfMatch, match)
		}
		w.If = &n
	}
	if w.Epoch, err = headerNumber(h, client.HeaderEpoch); err != nil {
		return err
	}
	if w.Seen, err = headerNumber(h, client.HeaderSeen); err != nil {
		return err
	}
	if w.Seen == 0 {
		if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) { w.Seen = st.Revision }); err != nil {
			return err
		}
	}
	h.Del(client.HeaderIfMatch) // which is the key's, not the definition's
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.KV = &w
	r, err := s.submit(c.ctx, cmd)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", fmt.Sprintf("%q", strconv.FormatUint(r.Revision, 10)))
	c.w.Header().Set(client.HeaderRevision, strconv.FormatUint(r.Revision, 10))
	return c.answer(client.KVDone{FormatVersion: client.FormatVersion, Revision: r.Revision})
}

func headerNumber(h http.Header, name string) (uint64, error) {
	text := h.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, bad("%s is %q; it is a number", name, text)
	}
	return n, nil
}

func tooLarge(message string) *client.Error {
	return &client.Error{Status: http.StatusRequestEntityTooLarge, Code: "limit", Message: message}
}

// sseLine is one message of a stream: its id, from which a reader goes on, and
// what it says.
type sseLine struct {
	id   uint64
	data any
}

// follow streams what look finds after a position, now and at each update of the
// state, until the caller goes away or look fails. An error before the first
// line is the answer; a later one is sent as `event: error` and ends the stream.
func (s *server) follow(c *call, since uint64, look func(since uint64) ([]sseLine, uint64, error)) error {
	flush := http.NewResponseController(c.w)
	begun := false
	beat := time.NewTicker(sseHeartbeat)
	defer beat.Stop()
	for {
		changed := s.b.Changed() // before the look, so that nothing falls between
		lines, next, err := look(since)
		if err != nil {
			var e *client.Error
			if !begun || !errors.As(err, &e) {
				return err
			}
			e.FormatVersion = client.FormatVersion
			data, _ := json.Marshal(e)
			_, _ = fmt.Fprintf(c.w, "event: error\ndata: %s\n\n", data)
			_ = flush.Flush()
			return nil
		}
		if !begun {
			c.w.Header().Set("Content-Type", "text/event-stream")
			c.w.Header().Set("Cache-Control", "no-store")
			c.w.Header().Set(client.HeaderRevision, strconv.FormatUint(since, 10))
			c.w.WriteHeader(http.StatusOK)
			_, _ = fmt.Fprintf(c.w, ": from revision %d\n\n", since)
		}
		for _, l := range lines {
			data, err := json.Marshal(l.data)
			if err != nil {
				return nil
			}
			if _, err := fmt.Fprintf(c.w, "id: %d\ndata: %s\n\n", l.id, data); err != nil {
				return nil
			}
		}
		if len(lines) > 0 || !begun {
			if flush.Flush() != nil {
				return nil
			}
		}
		begun, since = true, next
		select {
		case <-changed:
		case <-beat.C:
			if _, err := io.WriteString(c.w, ": still here\n\n"); err != nil || flush.Flush() != nil {
				return nil
			}
		case <-c.ctx.Done():
			return nil
		}
	}
}
