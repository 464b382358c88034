package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Self asks the node at endpoint ("": the socket, or the first endpoint) what
// it says of itself. Only that node is asked.
func (c *Client) Self(ctx context.Context, endpoint string) (s Self, err error) {
	err = c.call(ctx, c.only(endpoint), request{method: http.MethodGet, path: PathSelf}, &s)
	return s, err
}

// only is the one endpoint, or the first that there is.
func (c *Client) only(endpoint string) []string {
	if endpoint != "" {
		return []string{endpoint}
	}
	all := c.endpoints()
	return all[:min(1, len(all))]
}

// Status tells the cluster's state, from a node with quorum if there is one,
// else from the one with the newest copy.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	enough := func(body []byte) (bool, uint64) {
		var st Status
		_ = json.Unmarshal(body, &st)
		return st.Quorum.Have, st.Revision
	}
	err = c.newest(ctx, c.endpoints(), request{method: http.MethodGet, path: PathStatus}, enough, &s)
	return s, err
}

// Config reads the database. Fresh: not before everything committed up to now
// is in it, an *Error with Code no_quorum when that can't be had. Else the
// newest copy among the nodes that answer, from one with quorum if there is one.
func (c *Client) Config(ctx context.Context, fresh bool) (conf Config, err error) {
	if !fresh {
		return c.NewestConfig(ctx, c.endpoints())
	}
	err = c.call(ctx, c.endpoints(), request{method: http.MethodGet, path: PathConfig + "?fresh=1"}, &conf)
	return conf, err
}

// NewestConfig is Config without a barrier, of the nodes at these endpoints.
func (c *Client) NewestConfig(ctx context.Context, endpoints []string) (conf Config, err error) {
	enough := func(body []byte) (bool, uint64) {
		var cf Config
		_ = json.Unmarshal(body, &cf)
		return cf.Quorum, cf.Revision
	}
	err = c.newest(ctx, endpoints, request{method: http.MethodGet, path: PathConfig}, enough, &conf)
	return conf, err
}

// write is a call whose answer is Done.
func (c *Client) write(ctx context.Context, r request) (d Done, err error) {
	err = c.call(ctx, c.endpoints(), r, &d)
	return d, err
}

// Bootstrap makes the waiting node at endpoint the first of a new cluster. A
// node that this very bootstrap has made a member already answers Done again.
func (c *Client) Bootstrap(ctx context.Context, endpoint string, b Bootstrap) (d Done, err error) {
	err = c.call(ctx, c.only(endpoint), request{method: http.MethodPost, path: PathBootstrap, body: b}, &d)
	return d, err
}

// Join adds a node: it becomes a learner and gets the log. A node that is
// joined already with this server id answers Done; one that is known with
// another server id (an emptied directory) has its old one removed first.
func (c *Client) Join(ctx context.Context, m MemberRequest) (Done, error) {
	return c.write(ctx, request{method: http.MethodPost, path: PathMembers, body: m})
}

// UpdateMember changes a member's settings. ServerID 0 and an empty endpoint
// leave what there is. ifMatch 0: whatever the revision.
func (c *Client) UpdateMember(ctx context.Context, m MemberRequest, ifMatch uint64) (Done, error) {
	return c.write(ctx, request{method: http.MethodPut, path: PathMembers + "/" + url.PathEscape(m.Spec.ID), body: m, ifMatch: ifMatch})
}

// Promote makes a learner that has caught up a voter (where its settings give
// it a vote) and lets it own groups. *Error with Code busy while it has not
// caught up yet, or another change is under way: the call waits for
// Options.Patience.
func (c *Client) Promote(ctx context.Context, node string) (Done, error) {
	return c.write(ctx, request{method: http.MethodPost, path: PathMembers + "/" + url.PathEscape(node) + "/promote"})
}

// Leave takes a node out of the cluster for good. Whether its groups have left
// is the caller's check. Leaving twice is Done.
func (c *Client) Leave(ctx context.Context, node string) (Done, error) {
	return c.write(ctx, request{method: http.MethodDelete, path: PathMembers + "/" + url.PathEscape(node)})
}

// PutCluster changes the cluster's settings. ifMatch is the config_revision
// that the caller has seen, 0: any; an *Error with Code precondition when it
// has moved on.
func (c *Client) PutCluster(ctx context.Context, cl spec.Cluster, ifMatch uint64) (Done, error) {
	return c.write(ctx, request{method: http.MethodPut, path: PathCluster, body: cl, ifMatch: ifMatch})
}

// PutGroup makes a group (by its id) or changes it, with its resources, as one
// update.
func (c *Client) PutGroup(ctx context.Context, g spec.Group, ifMatch uint64) (Done, error) {
	return c.write(ctx, request{method: http.MethodPut, path: PathGroups + "/" + url.PathEscape(g.ID), body: g, ifMatch: ifMatch})
}

// DeleteGroup has its owner stop a group and then forgets it. Done means that
// this is committed, not that it has stopped: Config says when it is gone.
// Deleting what is not there is Done.
func (c *Client) DeleteGroup(ctx context.Context, group string, ifMatch uint64) (Done, error) {
	return c.write(ctx, request{method: http.MethodDelete, path: PathGroups + "/" + url.PathEscape(group), ifMatch: ifMatch})
}

func (c *Client) order(ctx context.Context, kind, id, what string, o Order) (Done, error) {
	return c.write(ctx, request{method: http.MethodPost, path: kind + "/" + url.PathEscape(id) + "/" + what, body: o, reason: o.Reason})
}

// Move has a group (id or name) go to another node. Done: the order is
// committed; the move follows.
func (c *Client) Move(ctx context.Context, group string, o Order) (Done, error) {
	return c.order(ctx, PathGroups, group, "move", o)
}

// Online has a group (id or name) run.
func (c *Client) Online(ctx context.Context, group string, o Order) (Done, error) {
	return c.order(ctx, PathGroups, group, "online", o)
}

// Offline has a group (id or name) stop and stay down.
func (c *Client) Offline(ctx context.Context, group string, o Order) (Done, error) {
	return c.order(ctx, PathGroups, group, "offline", o)
}

// Pause keeps groups from coming to a node (id or name).
func (c *Client) Pause(ctx context.Context, node string, o Order) (Done, error) {
	return c.order(ctx, PathNodes, node, "pause", o)
}

// Drain pauses a node (id or name) and has its groups leave.
func (c *Client) Drain(ctx context.Context, node string, o Order) (Done, error) {
	return c.order(ctx, PathNodes, node, "drain", o)
}

// Resume ends Pause and Drain.
func (c *Client) Resume(ctx context.Context, node string, o Order) (Done, error) {
	return c.order(ctx, PathNodes, node, "resume", o)
}

// Evict takes a node (id or name) that is down, or drained and empty, out of the
// cluster for good: its groups first, as safely as in any takeover, then its
// vote and its record. *Error with Code busy while its groups can't be taken
// yet: the call waits for Options.Patience.
func (c *Client) Evict(ctx context.Context, node string, o Order) (Done, error) {
	return c.order(ctx, PathNodes, node, "evict", o)
}

// Events are the event log's lines after the one with id since (0: all that
// is kept), oldest first: from a node with quorum if there is one, else from the
// one that knows the newest.
func (c *Client) Events(ctx context.Context, since uint64) (list []Event, err error) {
	if endpoints := c.endpoints(); len(endpoints) > 0 {
		body, refused, _ := c.round(ctx, endpoints, request{method: http.MethodGet, path: eventsPath(since, true)}, func([]byte) (bool, uint64) { return true, 0 })
		if body != nil {
			return list, decode(body, &list)
		}
		if refused != nil && !another(refused) {
			return nil, refused
		}
	}
	newest := func(body []byte) (bool, uint64) {
		var list []Event
		_ = json.Unmarshal(body, &list)
		if len(list) == 0 {
			return false, since
		}
		return false, list[len(list)-1].ID
	}
	err = c.newest(ctx, c.endpoints(), request{method: http.MethodGet, path: eventsPath(since, false)}, newest, &list)
	return list, err
}

// eventsPath asks for events after since; with quorum, a node without one refuses.
func eventsPath(since uint64, quorum bool) string {
	path := PathEvents + "?since=" + strconv.FormatUint(since, 10)
	if quorum {
		path += "&quorum=1"
	}
	return path
}

// Follow calls fn for each event after since, then for each new one as it
// comes, once and in order; when its node goes away, or has no quorum any more, it
// goes on with another. While no node has quorum nothing new is committed: it
// tells what is known, and waits. It returns ctx's error at the end, or why it
// can't go on: refused, or no node answers for Options.Patience.
func (c *Client) Follow(ctx context.Context, since uint64, fn func(Event)) error {
	pause := retryFirst
	silent := time.Now()
	for {
		var tries []Try
		alone := false
		for _, endpoint := range c.endpoints() {
			got, err := c.follow(ctx, endpoint, &since, fn)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var e *Error
			if errors.As(err, &e) && !another(e) {
				return e
			}
			alone = alone || e != nil && (e.Code == "no_quorum" || e.Code == "unread")
			if got {
				pause, silent = retryFirst, time.Now()
				break
			}
			tries = append(tries, Try{Endpoint: endpoint, Err: err})
		}
		if alone && len(tries) == len(c.endpoints()) {
			silent = time.Now() // they answer
			if list, err := c.Events(ctx, since); err == nil {
				for _, ev := range list {
					since = ev.ID
					fn(ev)
				}
			}
		}
		if time.Since(silent) > c.opt.Patience {
			return &Unreachable{Tries: tries}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMost)
	}
}

// streamSilence ends a stream on which not even a heartbeat comment came.
const streamSilence = 75 * time.Second

// follow reads one node's stream to its end; got says that the node answered.
func (c *Client) follow(ctx context.Context, endpoint string, since *uint64, fn func(Event)) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := time.AfterFunc(readTimeout, cancel) // until the node answers, then until its next line
	defer watch.Stop()
	res, err := c.send(ctx, endpoint, request{method: http.MethodGet, path: eventsPath(*since, true), accept: "text/event-stream"})
	if err != nil {
		return false, c.words(endpoint, err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return false, readError(res)
	}
	watch.Reset(streamSilence)
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 4096), 1<<20)
	for lines.Scan() {
		watch.Reset(streamSilence)
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue // ids stand in the events; comments keep the stream alive
		}
		var ev Event
		if err := json.Unmarshal([]byte(strings.TrimSpace(data)), &ev); err != nil {
			return true, fmt.Errorf("read event: %w", err)
		}
		if ev.ID <= *since {
			continue
		}
		*since = ev.ID
		fn(ev)
	}
	return true, lines.Err()
}

// Logs writes what the node at endpoint keeps of a resource's output to w:
// the last bytes of it (0: all), and with follow what comes, until ctx ends.
func (c *Client) Logs(ctx context.Context, endpoint, group, resource string, bytes int64, follow bool, w io.Writer) error {
	q := url.Values{}
	if bytes > 0 {
		q.Set("bytes", strconv.FormatInt(bytes, 10))
	}
	if follow {
		q.Set("follow", "1")
	}
	path := PathLogs + "/" + url.PathEscape(group) + "/" + url.PathEscape(resource)
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	only := c.only(endpoint)
	if len(only) == 0 {
		return &Error{Code: "bad_request", Message: "no endpoint to ask", Hint: "name the node's host:port"}
	}
	endpoint = only[0]
	res, err := c.send(ctx, endpoint, request{method: http.MethodGet, path: path})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var refused *Error
		if errors.As(c.words(endpoint, err), &refused) {
			return refused
		}
		return &Unreachable{Tries: []Try{{Endpoint: c.nameOf(endpoint), Err: err}}}
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return readError(res)
	}
	if _, err := io.Copy(w, res.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read log of %s/%s from %s: %w", group, resource, endpoint, err)
	}
	return ctx.Err()
}
