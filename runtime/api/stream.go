package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

const (
	sseHeartbeat = 30 * time.Second       // a comment, so that both ends see a dead connection
	logPoll      = 250 * time.Millisecond // of a followed log: plain files tell no one
	quorumPoll   = time.Second            // of a stream that is to end with the quorum: its loss is no update
)

// events answers the log's lines after ?since, or streams them. With ?quorum=1
// a node without quorum refuses, and ends a stream: its log may lack what the
// others have seen happen since.
func (s *server) events(c *call) error {
	since, err := number(c.r, "since")
	if err != nil {
		return err
	}
	quorum := c.r.URL.Query().Get("quorum") == "1"
	if !strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		list, err := s.eventsAfter(c, since, quorum)
		if err != nil {
			return err
		}
		if list == nil {
			list = []client.Event{}
		}
		return c.answer(list)
	}
	if last := c.r.Header.Get("Last-Event-ID"); last != "" {
		if since, err = strconv.ParseUint(last, 10, 64); err != nil {
			return bad("Last-Event-ID is %q; it is an event's id", last)
		}
	}
	return s.stream(c, since, quorum)
}

func number(r *http.Request, name string) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, bad("%s is %q; it is a number from 0 on", name, text)
	}
	return n, nil
}

// eventsAfter are copies of the kept events with an id above since.
func (s *server) eventsAfter(c *call, since uint64, quorum bool) (list []client.Event, err error) {
	known, alone := false, false
	err = s.read(c.ctx, func(st *confdb.State, ms member.Status) {
		known, alone = st.Cluster.ID != "" || len(st.Events) > 0, !ms.Quorum
		at, _ := slices.BinarySearchFunc(st.Events, since+1, func(e confdb.Event, id uint64) int {
			switch {
			case e.ID < id:
				return -1
			case e.ID > id:
				return 1
			}
			return 0
		})
		for _, e := range st.Events[at:] {
			list = append(list, client.Event{FormatVersion: client.FormatVersion, ID: e.ID, Time: e.Time, Node: e.Node,
				Object: e.Object, Kind: e.Kind, Text: e.Text, Cause: e.Cause, Author: e.Author})
		}
	})
	if err == nil && !known {
		err = s.waiting(c.ctx)
	}
	if err == nil && quorum && alone {
		err = &client.Error{Status: http.StatusServiceUnavailable, Code: "no_quorum", Hint: "ask another node, or without ?quorum=1",
			Message: "the node " + s.b.Facts().Name + " has no quorum: its event log may be behind"}
	}
	return list, err
}

// stream sends events as they are applied here, until the caller goes away.
func (s *server) stream(c *call, since uint64, quorum bool) error {
	flush := http.NewResponseController(c.w)
	var look <-chan time.Time
	if quorum {
		ticker := time.NewTicker(quorumPoll)
		defer ticker.Stop()
		look = ticker.C
	}
	begun := false
	beat := time.NewTicker(sseHeartbeat)
	defer beat.Stop()
	for {
		changed := s.b.Changed() // before the look, so that nothing falls between
		list, err := s.eventsAfter(c, since, quorum)
		if err != nil {
			if begun {
				return nil // the stream ends; who follows asks another node
			}
			return err
		}
		if !begun {
			c.w.Header().Set("Content-Type", "text/event-stream")
			c.w.Header().Set("Cache-Control", "no-store")
			c.w.WriteHeader(http.StatusOK)
		}
		for _, e := range list {
			data, err := json.Marshal(e)
			if err != nil {
				return nil
			}
			if _, err := fmt.Fprintf(c.w, "id: %d\ndata: %s\n\n", e.ID, data); err != nil {
				return nil
			}
			since = e.ID
		}
		if len(list) > 0 || !begun {
			if flush.Flush() != nil {
				return nil
			}
		}
		begun = true
		select {
		case <-changed:
		case <-look:
		case <-beat.C:
			if _, err := io.WriteString(c.w, ": still here\n\n"); err != nil || flush.Flush() != nil {
				return nil
			}
		case <-c.ctx.Done():
			return nil
		}
	}
}

// logs sends what this node keeps of a resource's output.
func (s *server) logs(c *call) error {
	id, err := s.groupID(c, c.r.PathValue("group"))
	if err != nil {
		return err
	}
	resource, group, owner := c.r.PathValue("resource"), "", ""
	found := false
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		if g, ok := st.Groups[id]; ok {
			group, owner = g.Spec.Name, nameOf(st, g.Owner.Node)
			_, found = g.Spec.Resource(resource)
		}
	}); err != nil {
		return err
	}
	if !found {
		return &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("the group %s has no resource %q", group, resource)}
	}
	tail, err := number(c.r, "bytes")
	if err != nil {
		return err
	}
	follow := c.r.URL.Query().Get("follow")
	path := filepath.Join(s.b.Facts().LogDir, group, resource+".log")
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		e := &client.Error{Status: http.StatusNotFound, Code: "not_found",
			Message: fmt.Sprintf("%s keeps no log of %s/%s: it has not run here, or writes none", s.b.Facts().Name, group, resource)}
		if owner != "" && owner != s.b.Facts().Name {
			e.Hint = "the group is on " + owner + "; ask there"
		}
		return e
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { file.Close() }()
	if info, err := file.Stat(); err == nil && tail > 0 && int64(tail) < info.Size() {
		if _, err := file.Seek(-int64(tail), io.SeekEnd); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	if _, err := io.Copy(c.w, file); err != nil || (follow != "1" && follow != "true") {
		return nil
	}
	flush := http.NewResponseController(c.w)
	poll := time.NewTicker(logPoll)
	defer poll.Stop()
	for {
		if flush.Flush() != nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-c.ctx.Done():
			return nil
		}
		if _, err := io.Copy(c.w, file); err != nil {
			return nil
		}
		if next := rotated(path, file); next != nil {
			_, _ = io.Copy(c.w, file) // what came before it was renamed
			file.Close()
			file = next
			if _, err := io.Copy(c.w, file); err != nil {
				return nil
			}
		}
	}
}

// rotated opens path when it is another file by now than the open one.
func rotated(path string, open *os.File) *os.File {
	now, err := os.Stat(path)
	if err != nil {
		return nil
	}
	was, err := open.Stat()
	if err != nil || os.SameFile(was, now) {
		return nil
	}
	next, err := os.Open(path)
	if err != nil {
		return nil
	}
	return next
}
