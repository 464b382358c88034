package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Entry is a key with its value.
type Entry struct {
	Key      string `json:"key"`
	Value    []byte `json:"value"`
	Revision uint64 `json:"revision"` // of the update that wrote it: what CAS compares
	Created  uint64 `json:"created"`  // of the update that made the key
	Deleted  bool   `json:"deleted"`  // of a watch: the key is gone
}

// Space is a part of the key-value store: a group's keys, or the cluster's. A
// key is UTF-8 of at most 512 bytes without control characters, a value at most
// 64 KiB; all spaces together hold 16 MiB, keys and 128 bytes an entry counted in.
type Space struct {
	c     *Client
	path  string
	epoch uint64
	stale bool
}

// Group is the key space of a group, by name; "" is the caller's own. By its
// group's socket a resource reaches its own group's only.
func (c *Client) Group(name string) *Space {
	if name == "" {
		name = c.conf.Group
	}
	return &Space{c: c, path: "/v1/kv/group/" + segment(name)}
}

// Cluster is the key space that belongs to no group. Resources read it by their
// group's socket; operators and admins write it.
func (c *Client) Cluster() *Space { return &Space{c: c, path: "/v1/kv/cluster"} }

// Fenced is the same space; writes are refused with ErrFenced unless epoch is
// still the group's current one.
func (s *Space) Fenced(epoch uint64) *Space {
	t := *s
	t.epoch = epoch
	return &t
}

// Stale is the same space; reads are answered from the node's own copy at once,
// which may be behind, also without quorum.
func (s *Space) Stale() *Space {
	t := *s
	t.stale = true
	return &t
}

// segment escapes a text for one segment of a path; also the dots, which would
// be taken for directories.
func segment(text string) string {
	return strings.ReplaceAll(url.PathEscape(text), ".", "%2E")
}

func (s *Space) query() url.Values {
	q := url.Values{}
	if s.stale {
		q.Set("stale", "1")
	}
	return q
}

// Get reads a key; ErrNotFound if there is none.
func (s *Space) Get(ctx context.Context, key string) (Entry, error) {
	if key == "" {
		return Entry{}, errors.New("a key is empty")
	}
	body, header, err := s.c.call(ctx, request{method: http.MethodGet, path: s.path + "/" + segment(key), query: s.query()})
	if err != nil {
		return Entry{}, err
	}
	n, err := strconv.ParseUint(strings.Trim(header.Get("ETag"), `"`), 10, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("read the agent's answer: its ETag is no revision: %w", err)
	}
	return Entry{Key: key, Value: body, Revision: n}, nil
}

// List reads all keys that begin with prefix, in order, and the revision that a
// Watch can go on from. A large list is read in pieces: keys that change
// meanwhile may be in it as they were or as they are; Watch from the revision
// tells of each change.
func (s *Space) List(ctx context.Context, prefix string) (list []Entry, revision uint64, err error) {
	q := s.query()
	q.Set("prefix", prefix)
	q.Set("limit", "1000")
	for {
		body, _, err := s.c.call(ctx, request{method: http.MethodGet, path: s.path, query: q})
		if err != nil {
			return nil, 0, err
		}
		var part struct {
			Revision uint64  `json:"revision"`
			Entries  []Entry `json:"entries"`
			More     bool    `json:"more"`
		}
		if err := json.Unmarshal(body, &part); err != nil {
			return nil, 0, fmt.Errorf("read the agent's answer: %w", err)
		}
		if revision == 0 {
			revision = part.Revision
		}
		list = append(list, part.Entries...)
		if !part.More || len(part.Entries) == 0 {
			return list, revision, nil
		}
		q.Set("after", part.Entries[len(part.Entries)-1].Key)
	}
}

// Put writes a key, whatever there is, and returns its new revision.
func (s *Space) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	return s.write(ctx, http.MethodPut, key, value, http.Header{})
}

// Create writes a key that is not there yet; else ErrChanged.
func (s *Space) Create(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	return s.write(ctx, http.MethodPut, key, value, http.Header{"If-None-Match": {"*"}})
}

// CAS writes a key that is still at a revision; else ErrChanged. Revision 0
// means that the key is not there.
func (s *Space) CAS(ctx context.Context, key string, value []byte, revision uint64) (next uint64, err error) {
	if revision == 0 {
		return s.Create(ctx, key, value)
	}
	return s.write(ctx, http.MethodPut, key, value, ifMatch(revision))
}

// Delete removes a key; that it is not there is no error.
func (s *Space) Delete(ctx context.Context, key string) error {
	_, err := s.write(ctx, http.MethodDelete, key, nil, http.Header{})
	return err
}

// DeleteIf removes a key that is still at a revision; else ErrChanged.
func (s *Space) DeleteIf(ctx context.Context, key string, revision uint64) error {
	_, err := s.write(ctx, http.MethodDelete, key, nil, ifMatch(revision))
	return err
}

func ifMatch(revision uint64) http.Header {
	return http.Header{"If-Match": {strconv.FormatUint(revision, 10)}}
}

func (s *Space) write(ctx context.Context, method, key string, value []byte, header http.Header) (uint64, error) {
	if key == "" {
		return 0, errors.New("a key is empty")
	}
	if s.epoch > 0 {
		header.Set("Clusterplan-Epoch", strconv.FormatUint(s.epoch, 10))
	}
	body, _, err := s.c.call(ctx, request{method: method, path: s.path + "/" + segment(key), header: header, body: value})
	if err != nil {
		return 0, err
	}
	var done struct {
		Revision uint64 `json:"revision"`
	}
	if err := json.Unmarshal(body, &done); err != nil {
		return 0, fmt.Errorf("read the agent's answer: %w", err)
	}
	return done.Revision, nil
}

// Update reads a key, has fn make its next value (nil: as it is), and writes it
// if nobody else did meanwhile; else it begins again. A key that is not there
// is an Entry with Revision 0.
func (s *Space) Update(ctx context.Context, key string, fn func(Entry) ([]byte, error)) (Entry, error) {
	for {
		e, err := s.Get(ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Entry{}, err
		}
		value, err := fn(e)
		if err != nil || value == nil {
			return e, err
		}
		revision, err := s.CAS(ctx, key, value, e.Revision)
		if err == nil {
			return Entry{Key: key, Value: value, Revision: revision}, nil
		}
		if !errors.Is(err, ErrChanged) {
			return Entry{}, err
		}
	}
}

// Watch calls fn for each key with that prefix that changes after a revision (0:
// from now on), in the order of the changes, with what it is by then; changes
// that follow each other closely may be told as one. It goes on by itself when
// the agent goes away for a while, and returns ctx's error at the end; ErrGone
// when the changes since the revision are not kept any more (the newest 1,000
// of all spaces are): List again, and watch from there.
func (s *Space) Watch(ctx context.Context, prefix string, since uint64, fn func(Entry)) error {
	return s.c.follow(ctx, s.path, url.Values{"prefix": {prefix}}, since, func(data []byte) error {
		var e Entry
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read a change: %w", err)
		}
		fn(e)
		return nil
	})
}

// streamSilence ends a stream on which not even a heartbeat comment came.
const streamSilence = 75 * time.Second

// follow reads a stream of server-sent events, and begins again after its last
// id when it breaks off.
func (c *Client) follow(ctx context.Context, path string, query url.Values, since uint64, fn func([]byte) error) error {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		heard, err := c.stream(ctx, path, query, &since, fn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var e *Error
		if errors.As(err, &e) && !again(e) || errors.Is(err, errFn) {
			return err
		}
		if heard {
			pause = retryFirst
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

var errFn = errors.New("the watch ends")

func (c *Client) stream(ctx context.Context, path string, query url.Values, since *uint64, fn func([]byte) error) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(attemptWithin, cancel)
	defer silence.Stop()
	if *since > 0 {
		query.Set("since", strconv.FormatUint(*since, 10))
	}
	res, err := c.send(ctx, request{method: http.MethodGet, path: path, query: query, header: http.Header{"Accept": {"text/event-stream"}}})
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return false, readError(res)
	}
	if n, err := strconv.ParseUint(res.Header.Get("Clusterplan-Revision"), 10, 64); err == nil && *since == 0 {
		*since = n
	}
	silence.Reset(streamSilence)
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 4096), 1<<20)
	id, failed := *since, false
	for lines.Scan() {
		silence.Reset(streamSilence)
		line := lines.Text()
		switch {
		case line == "event: error":
			failed = true
		case strings.HasPrefix(line, "id: "):
			if n, err := strconv.ParseUint(line[4:], 10, 64); err == nil {
				id = n
			}
		case strings.HasPrefix(line, "data: ") && failed:
			e := &Error{}
			if err := json.Unmarshal([]byte(line[6:]), e); err != nil {
				return true, fmt.Errorf("read the agent's answer: %w", err)
			}
			return true, e
		case strings.HasPrefix(line, "data: "):
			if err := fn([]byte(line[6:])); err != nil {
				return true, fmt.Errorf("%w: %w", errFn, err)
			}
			*since = id
		}
	}
	return true, lines.Err()
}
