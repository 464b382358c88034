// Package api is the agents' HTTP/JSON server, version /v1: what a node says of
// itself and of the cluster, changes of the definition, operators' orders, the
// event log as a stream, and logs of resources. Wire types and paths stand in
// runtime/api/client, so that both ends share them.
//
// It owns no state and no listener: requests become commands and membership
// changes that a Backend (the agent) carries out, answers are read from its
// copy of the database. Whoever gets here has shown a certificate of the
// cluster's authority (the listener insists) or came by the node's own socket;
// what a role may do is decided in this package, at the routes. Start reading
// at routes.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// Backend is what the server asks of its node; *agent.Node is one.
type Backend interface {
	// Submit has a command committed and waits until it is applied here.
	// Submitting it again with the same id changes nothing more. Result.Code may
	// also be no_leader, busy or unknown (member.Reply). The error is ctx's, with
	// the outcome unknown, or agent.ErrStopping.
	Submit(ctx context.Context, c confdb.Command) (confdb.Result, error)
	// Membership changes who takes part in the agreement, at the leader only:
	// elsewhere Result.Code is not_leader. Errors as Submit's.
	Membership(ctx context.Context, m member.Membership) (confdb.Result, error)
	// Bootstrap makes this waiting node the only voter of a new cluster.
	Bootstrap(ctx context.Context, q spec.Quorum) (confdb.Result, error)
	// Read calls fn between two steps of the node. fn keeps no pointer into the
	// state, and is quick: leases wait for it.
	Read(ctx context.Context, fn func(s *confdb.State, st member.Status)) error
	// Changed is closed at the next update of the state.
	Changed() <-chan struct{}
	// Facts are what the node knows of itself.
	Facts() agent.Facts
}

const (
	maxBody      = 4 << 20
	bodyWithin   = 30 * time.Second // from a request's header to the end of its body
	commitWithin = 5 * time.Second  // a write's wait for its commit; the client asks again with the same id
)

// Handler is the API of a node, for agent.Config.
func Handler(n *agent.Node) http.Handler { return New(n) }

// New is the API over a backend.
func New(b Backend) http.Handler {
	s := &server{b: b, mux: http.NewServeMux(), votes: make(chan struct{}, 1)}
	s.routes()
	return s
}

// ServeHTTP answers what the mux would refuse without words.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.RequestURI == "*" {
		fail(w, bad("%s * asks for nothing that the API has; docs/api.md lists the paths", clean(r.Method)))
		return
	}
	s.mux.ServeHTTP(w, r)
}

type server struct {
	b       Backend
	mux     *http.ServeMux
	barrier barrier
	votes   chan struct{} // full while a vote is being taken
}

// routes says which role each path asks for: applications read, and write what
// is their group's; readers (and nodes) read all, operators give orders, admins
// change the definition and the membership.
func (s *server) routes() {
	const app, read, operate, admin = client.RoleApplication, client.RoleReader, client.RoleOperator, client.RoleAdmin
	for _, space := range []string{"/cluster", "/group/{group}"} {
		s.handle("GET "+client.PathKV+space, app, s.kvList)
		s.handle("GET "+client.PathKV+space+"/{key...}", app, s.kvGet)
		s.handle("PUT "+client.PathKV+space+"/{key...}", app, s.forWriters(s.kvPut))
		s.handle("DELETE "+client.PathKV+space+"/{key...}", app, s.forWriters(s.kvDelete))
	}

	s.handle("GET "+client.PathSelf, app, s.self)
	s.handle("GET "+client.PathStatus, app, s.status)
	s.handle("GET "+client.PathGroups+"/{id}/owner", app, s.owner)
	const cp = client.PathCheckpoints + "/{group}"
	s.handle("GET "+cp, app, s.checkpoints)
	s.handle("GET "+cp+"/{resource}", app, s.checkpoint)
	s.handle("GET "+cp+"/{resource}/chunks/{hash}", app, s.forMonitor(s.chunk))
	s.handle("PUT "+cp+"/{resource}", app, s.forMonitor(s.putCheckpoint))
	s.handle("POST "+cp+"/{resource}/chunks", app, s.forMonitor(s.putChunk))
	s.handle("POST "+cp+"/{resource}/problem", app, s.forMonitor(s.checkpointProblem))
	s.handle("GET "+client.PathConfig, read, s.config)
	s.handle("GET "+client.PathEvents, app, s.events)
	s.handle("GET "+client.PathLogs+"/{group}/{resource}", read, s.logs)

	s.handle("POST "+client.PathGroups+"/{id}/move", operate, s.moveGroup)
	s.handle("POST "+client.PathGroups+"/{id}/online", operate, s.wantGroup(true))
	s.handle("POST "+client.PathGroups+"/{id}/offline", operate, s.wantGroup(false))
	s.handle("POST "+client.PathNodes+"/{id}/pause", operate, s.pauseNode(false))
	s.handle("POST "+client.PathNodes+"/{id}/drain", operate, s.pauseNode(true))
	s.handle("POST "+client.PathNodes+"/{id}/resume", operate, s.resumeNode)

	s.handle("POST "+client.PathNodes+"/{id}/fence", operate, s.fenceNode)

	s.handle("PUT "+client.PathFences+"/{id}", admin, s.putFence)
	s.handle("DELETE "+client.PathFences+"/{id}", admin, s.deleteFence)
	s.handle("PUT "+client.PathChange, admin, s.takeChange)
	s.handle("DELETE "+client.PathChange+"/{id}", admin, s.endChange)
	s.handle("GET "+client.PathKeys, read, s.frameKeys)
	s.handle("POST "+client.PathKeys+"/rotate", admin, s.rotateKeys)
	s.handle("PUT "+client.PathCluster, admin, s.putCluster)
	s.handle("PUT "+client.PathGroups+"/{id}", admin, s.putGroup)
	s.handle("DELETE "+client.PathGroups+"/{id}", admin, s.deleteGroup)
	s.handle("POST "+client.PathBootstrap, admin, s.bootstrap)
	s.handle("POST "+client.PathMembers, admin, s.asHolder(s.join))
	s.handle("PUT "+client.PathMembers+"/{id}", admin, s.asHolder(s.updateMember))
	s.handle("POST "+client.PathNodes+"/{id}/evict", admin, s.asHolder(s.evictNode))
	s.handle("POST "+client.PathMembers+"/{id}/promote", admin, s.asHolder(s.promote))
	s.handle("DELETE "+client.PathMembers+"/{id}", admin, s.asHolder(s.leave))

	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &client.Error{Status: http.StatusNotFound, Code: "not_found",
			Message: fmt.Sprintf("the API has no %s %s", r.Method, r.URL.Path),
			Hint:    "docs/api.md lists the paths; an older agent may not have all of them"})
	})
}

// forWriters lets operators and admins write keys, and applications their own
// group's: a reader's certificate only reads.
func (s *server) forWriters(fn func(*call) error) func(*call) error {
	return func(c *call) error {
		if allowed(c.role, client.RoleOperator) || c.role == client.RoleApplication && c.r.PathValue("group") != "" {
			return fn(c)
		}
		return &client.Error{Status: http.StatusForbidden, Code: "forbidden",
			Message: fmt.Sprintf("%s has the role %s; a group's keys are written by its own resources (its socket), operators and admins, the cluster's by operators and admins", c.who, c.role),
			Hint:    "ask with a certificate of that role, or by the group's socket"}
	}
}

// forMonitor lets in the monitor (it comes by the group's socket as the agent's
// own user) and admins. A checkpoint is restored by root, with the owner and mode
// that stand in it, and its bytes may be of files that only root reads: a
// resource that runs as another user gets neither by the API.
func (s *server) forMonitor(fn func(*call) error) func(*call) error {
	return func(c *call) error {
		if allowed(c.role, client.RoleAdmin) || c.role == client.RoleApplication && agent.LocalMonitor(c.ctx) {
			return fn(c)
		}
		return &client.Error{Status: http.StatusForbidden, Code: "forbidden",
			Message: fmt.Sprintf("%s has the role %s; what checkpoints hold is written and read by the monitor, and by admins", c.who, c.role),
			Hint:    "say in the resource's checkpoint block what is kept; programs keep their own data under " + client.PathKV}
	}
}

// call is one request with who asks.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	ctx  context.Context
	who  string // for the event log
	role string

	group string // of an application: its group's id
}

// handle puts the checks that every route shares before fn.
func (s *server) handle(pattern, role string, fn func(c *call) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c := &call{w: w, r: r, ctx: r.Context()}
		if err := c.identify(); err != nil {
			fail(w, err)
			return
		}
		if !allowed(c.role, role) {
			fail(w, &client.Error{Status: http.StatusForbidden, Code: "forbidden",
				Message: fmt.Sprintf("%s has the role %s; %s %s needs %s", c.who, c.role, r.Method, r.URL.Path, role),
				Hint:    "ask with a certificate of that role"})
			return
		}
		r.Body = http.MaxBytesReader(w, timely(w, r), maxBody)
		if err := fn(c); err != nil {
			fail(w, err)
		}
	})
}

// timely is a request's body, which has to come within bodyWithin. The answer may
// take as long as it likes: it may be a stream.
func timely(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	if r.ContentLength == 0 || r.Body == nil {
		return r.Body
	}
	conn := http.NewResponseController(w)
	if conn.SetReadDeadline(time.Now().Add(bodyWithin)) != nil {
		return r.Body // no connection: a test's recorder
	}
	return &timelyBody{r.Body, conn}
}

type timelyBody struct {
	io.ReadCloser
	conn *http.ResponseController
}

func (b *timelyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.conn.SetReadDeadline(time.Time{})
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("it did not come within %s", bodyWithin)
	}
	return n, err
}

// identify fills in who and role from the certificate, or from the socket that
// the kernel lets only this user and root reach.
func (c *call) identify() error {
	author := clean(c.r.Header.Get(client.HeaderAuthor))
	if group, user, ok := agent.LocalGroup(c.ctx); ok {
		c.role, c.group, c.who = client.RoleApplication, group, user
		return nil
	}
	if user, ok := agent.LocalUser(c.ctx); ok {
		c.role, c.who = client.RoleAdmin, author
		if c.who == "" {
			c.who = user
		}
		return nil
	}
	if c.r.TLS == nil || len(c.r.TLS.VerifiedChains) == 0 {
		return &client.Error{Status: http.StatusUnauthorized, Code: "unauthenticated",
			Message: "no certificate of this cluster", Hint: "ask with one of the cluster's authority, or by the node's own socket"}
	}
	peer := pki.PeerOf(c.r.TLS.VerifiedChains[0][0])
	c.who, c.role = peer.Name, peer.Role
	if now := time.Now(); now.After(peer.NotAfter) { // meanwhile, on a connection that stayed
		return &client.Error{Status: http.StatusUnauthorized, Code: "unauthenticated",
			Message: fmt.Sprintf("the certificate of %s expired at %s", c.who, peer.NotAfter.UTC().Format(time.RFC3339)),
			Hint:    "connect with a new one; clusterplan apply renews what it keeps"}
	}
	if !allowed(c.role, client.RoleReader) {
		return &client.Error{Status: http.StatusForbidden, Code: "forbidden",
			Message: fmt.Sprintf("the certificate of %q names no role", c.who),
			Hint:    "its organizational unit has to be reader, operator or admin"}
	}
	if author != "" && c.role != client.RoleNode && author != c.who {
		c.who = author + " (" + c.who + ")"
	}
	return nil
}

// allowed: each role may what the ones before it may; nodes read.
func allowed(have, need string) bool {
	rank := map[string]int{client.RoleApplication: 1, client.RoleNode: 2, client.RoleReader: 2, client.RoleOperator: 3, client.RoleAdmin: 4}
	return rank[have] >= rank[need]
}

var unclean = regexp.MustCompile(`[^\x20-\x7e\x{a0}-\x{10ffff}]+`)

// clean keeps control characters out of the event log and terminals.
func clean(s string) string {
	s = strings.TrimSpace(unclean.ReplaceAllString(s, " "))
	if len(s) > 256 {
		s = strings.ToValidUTF8(s[:256], "")
	}
	return s
}

// body reads the request's JSON object into v; unknown fields are refused.
func (c *call) body(v any) error {
	dec := json.NewDecoder(c.r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.More() {
		err = errors.New("something follows the object")
	}
	if err == nil {
		return nil
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &client.Error{Status: http.StatusRequestEntityTooLarge, Code: "bad_request",
			Message: fmt.Sprintf("the request is larger than %d MiB", maxBody>>20)}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it is empty")
	}
	return bad("the request's body can't be read: %v", err)
}

// command is the start of a write, with what the headers say.
func (c *call) command(reason string) (confdb.Command, error) {
	cmd := confdb.Command{ID: c.r.Header.Get(client.HeaderCommand), Time: time.Now().UTC(), Author: c.who, Reason: clean(reason),
		Change: clean(c.r.Header.Get(client.HeaderChange))}
	if clean(cmd.ID) != cmd.ID { // cut short it could be another one's, which was done already
		return cmd, bad("%s is no id: at most 256 bytes of text without control characters", client.HeaderCommand)
	}
	if c.role == client.RoleApplication && cmd.ID != "" {
		// A program's ids are its group's: the same one of another group, or of an
		// agent, would be answered with what that one did, and not be done.
		cmd.ID = "group " + c.group + " " + cmd.ID
	}
	if cmd.Reason == "" {
		cmd.Reason = clean(c.r.Header.Get(client.HeaderReason))
	}
	if cmd.ID == "" {
		cmd.ID = newID()
	}
	if m := strings.Trim(c.r.Header.Get(client.HeaderIfMatch), `"`); m != "" && m != "*" {
		n, err := strconv.ParseUint(m, 10, 64)
		if err != nil {
			return cmd, bad("%s is %q; it carries a config_revision", client.HeaderIfMatch, m)
		}
		cmd.IfMatch = n
	}
	return cmd, nil
}

func (c *call) answer(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(data))) // so that who reads it knows how much memory to set aside
	_, _ = c.w.Write(data)
	return nil
}

// done answers a committed write.
func (s *server) done(c *call, revision uint64) error {
	d := client.Done{FormatVersion: client.FormatVersion, Revision: revision}
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		d.ConfigRevision = st.ConfigRevision
		d.Revision = max(d.Revision, 1)
		if revision == 0 {
			d.Revision = st.Revision
		}
	}); err != nil {
		return err
	}
	return c.answer(d)
}

func (s *server) read(ctx context.Context, fn func(*confdb.State, member.Status)) error {
	if err := s.b.Read(ctx, fn); err != nil {
		return stopping(err)
	}
	return nil
}

func stopping(err error) error {
	return &client.Error{Status: http.StatusServiceUnavailable, Code: "busy", Message: "this agent is stopping: " + err.Error(), Hint: "ask another node"}
}

func bad(format string, args ...any) *client.Error {
	return &client.Error{Status: http.StatusBadRequest, Code: "bad_request", Message: fmt.Sprintf(format, args...)}
}

func fail(w http.ResponseWriter, err error) {
	var e *client.Error
	if !errors.As(err, &e) {
		e = &client.Error{Status: http.StatusInternalServerError, Code: "internal", Message: err.Error()}
	}
	e.FormatVersion = client.FormatVersion
	data, _ := json.Marshal(e)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(data, '\n'))
}
