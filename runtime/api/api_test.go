package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

func TestRoles(t *testing.T) {
	t.Parallel()
	_, h := formed(t)
	ranks := []string{"", "guest", client.RoleNode, client.RoleReader, client.RoleOperator, client.RoleAdmin}
	for _, tc := range []struct{ method, path, least string }{
		{"GET", client.PathSelf, client.RoleNode},
		{"GET", client.PathStatus, client.RoleNode},
		{"GET", client.PathConfig, client.RoleNode},
		{"GET", client.PathEvents, client.RoleNode},
		{"POST", client.PathGroups + "/web/online", client.RoleOperator},
		{"POST", client.PathNodes + "/n2/pause", client.RoleOperator},
		{"POST", client.PathNodes + "/n2/resume", client.RoleOperator},
		{"POST", client.PathNodes + "/n2/fence", client.RoleOperator},
		{"PUT", client.PathFences + "/f1", client.RoleAdmin},
		{"DELETE", client.PathFences + "/nothing", client.RoleAdmin},
		{"PUT", client.PathCluster, client.RoleAdmin},
		{"PUT", client.PathGroups + "/g1", client.RoleAdmin},
		{"DELETE", client.PathGroups + "/nothing", client.RoleAdmin},
		{"POST", client.PathMembers, client.RoleAdmin},
		{"DELETE", client.PathMembers + "/nobody", client.RoleAdmin},
	} {
		for i, role := range ranks {
			code, text := ask(t, h, role, tc.method, tc.path, nil)
			refused := code == 401 || code == 403
			want := i < slices.Index(ranks, tc.least)
			if refused != want || (role == "" && code != 401) {
				t.Errorf("%s %s as %q: %d %s", tc.method, tc.path, role, code, text)
			}
			var e client.Error
			if refused && (json.Unmarshal([]byte(text), &e) != nil || e.Message == "" || e.Hint == "" || e.FormatVersion == "") {
				t.Errorf("%s %s as %q: words are missing: %s", tc.method, tc.path, role, text)
			}
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	other := testCluster()
	other.ID = "ffff"
	moved := testGroup()
	moved.ID = "g2"
	again := request(2)
	again.ServerID = 99
	for _, tc := range []struct {
		name, method, path string
		body               any
		header             []string
		code               int
		word               string
	}{
		{name: "no such path", method: "GET", path: "/v1/nothing", code: 404, word: "docs/api.md"},
		{name: "wrong method", method: "DELETE", path: client.PathStatus, code: 404, word: "DELETE /v1/status"},
		{name: "no JSON", method: "PUT", path: client.PathCluster, body: "{", code: 400, word: "can't be read"},
		{name: "empty", method: "PUT", path: client.PathCluster, code: 400, word: "empty"},
		{name: "unknown field", method: "POST", path: client.PathGroups + "/web/move", body: `{"nod":"n2"}`, code: 400, word: `unknown field \"nod\"`},
		{name: "two values", method: "POST", path: client.PathGroups + "/web/move", body: `{} {}`, code: 400, word: "follows"},
		{name: "too large", method: "PUT", path: client.PathCluster, body: `{"name":"` + strings.Repeat("x", maxBody) + `"}`, code: 413, word: "4 MiB"},
		{name: "other cluster", method: "PUT", path: client.PathCluster, body: other, code: 409, word: "belongs to"},
		{name: "id in path and body", method: "PUT", path: client.PathGroups + "/g1", body: moved, code: 400, word: "g2"},
		{name: "unknown group", method: "POST", path: client.PathGroups + "/wep/online", code: 404, word: "web"},
		{name: "unknown target", method: "POST", path: client.PathGroups + "/web/move", body: client.Order{Node: "n9"}, code: 404, word: "n9"},
		{name: "If-Match that is none", method: "PUT", path: client.PathCluster, body: testCluster(), header: []string{client.HeaderIfMatch, "x"}, code: 400, word: "config_revision"},
		{name: "If-Match passed", method: "PUT", path: client.PathCluster, body: testCluster(), header: []string{client.HeaderIfMatch, "1"}, code: 412, word: "plan again"},
		{name: "bootstrap again by another", method: "POST", path: client.PathBootstrap, body: client.Bootstrap{Cluster: testCluster(), Member: request(2)}, code: 400, word: "this node is id1"},
		{name: "settings with another server", method: "PUT", path: client.PathMembers + "/id2", body: again, code: 409, word: "joins anew"},
		{name: "no server id", method: "POST", path: client.PathMembers, body: client.MemberRequest{Spec: nodeSpec(3)}, code: 400, word: "server_id"},
		{name: "bad since", method: "GET", path: client.PathEvents + "?since=-1", code: 400, word: "since"},
		{name: "log of nothing", method: "GET", path: client.PathLogs + "/web/vip", code: 404, word: "keeps no log"},
		{name: "log out of its directory", method: "GET", path: client.PathLogs + "/web/..%2f..%2fagent", code: 404, word: "no resource"},
	} {
		before := f.state.Revision
		code, text := ask(t, h, client.RoleAdmin, tc.method, tc.path, tc.body, tc.header...)
		if code != tc.code || !strings.Contains(text, tc.word) {
			t.Errorf("%s: %d %.300s", tc.name, code, text)
		}
		if tc.code != 412 && f.state.Revision != before {
			t.Errorf("%s: something was committed", tc.name)
		}
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		result confdb.Result
		err    error
		quorum bool
		code   int
		name   string
	}{
		{result: confdb.Result{Code: "no_leader"}, code: 503, name: "no_quorum"},
		{result: confdb.Result{Code: "unknown", Detail: "it was not seen committed in time"}, code: 503, name: "unknown_outcome"},
		{result: confdb.Result{Code: "busy"}, code: 503, name: "busy"},
		{result: confdb.Result{Code: confdb.CodeConflict, Detail: "x"}, code: 409, name: "conflict"},
		{result: confdb.Result{Code: confdb.CodeInvalid, Detail: "x"}, code: 400, name: "bad_request"},
		{err: context.DeadlineExceeded, quorum: true, code: 503, name: "unknown_outcome"},
		{err: context.DeadlineExceeded, code: 503, name: "no_quorum"},
		{err: agent.ErrStopping, code: 503, name: "busy"},
	} {
		f, h := formed(t)
		f.submit = func(confdb.Command) (confdb.Result, error) { return tc.result, tc.err }
		f.status.Quorum = tc.quorum
		for _, path := range []string{"POST " + client.PathGroups + "/web/online", "GET " + client.PathConfig + "?fresh=1"} {
			method, path, _ := strings.Cut(path, " ")
			code, text := ask(t, h, client.RoleAdmin, method, path, nil)
			var e client.Error
			if err := json.Unmarshal([]byte(text), &e); err != nil || code != tc.code || e.Code != tc.name || e.Message == "" {
				t.Errorf("%+v on %s: %d %s", tc, path, code, text)
			}
		}
		// What needs no agreement is answered all the same.
		var conf client.Config
		code, text := ask(t, h, client.RoleReader, "GET", client.PathConfig, nil)
		if json.Unmarshal([]byte(text), &conf) != nil || code != 200 || conf.Quorum != tc.quorum || len(conf.Groups) != 1 {
			t.Errorf("%+v: config %d %s", tc, code, text)
		}
	}
}

func TestMembershipsLife(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	step := func(name, method, path string, body any, code int, word string, ops ...string) {
		t.Helper()
		f.ops = nil
		got, text := ask(t, h, client.RoleAdmin, method, path, body)
		if got != code || !strings.Contains(text, word) || !slices.Equal(f.ops, ops) {
			t.Errorf("%s: %d %s, operations %q", name, got, text, f.ops)
		}
	}
	step("bootstrap done before", "POST", client.PathBootstrap, client.Bootstrap{Cluster: testCluster(), Member: request(1)}, 200, "")
	step("join", "POST", client.PathMembers, request(3), 200, "", "add_learner 3")
	step("join again", "POST", client.PathMembers, request(3), 200, "")
	step("promote too early", "POST", client.PathMembers+"/id3/promote", nil, 503, "caught up")
	f.status.CaughtUp[3] = true
	step("promote", "POST", client.PathMembers+"/id3/promote", nil, 200, "", "promote 3")
	step("promote again", "POST", client.PathMembers+"/id3/promote", nil, 200, "")
	if !f.state.Nodes["id3"].Joined {
		t.Error("n3 has not joined")
	}
	emptied := request(3)
	emptied.ServerID = 33
	step("join with an emptied directory", "POST", client.PathMembers, emptied, 200, "", "remove 3", "add_learner 33")
	if n := f.state.Nodes["id3"]; n.Joined || n.ServerID != 33 {
		t.Errorf("n3 is %+v", n)
	}
	f.status.CaughtUp[33] = true
	step("promote the new one", "POST", client.PathMembers+"/id3/promote", nil, 200, "", "promote 33")
	silent := request(3)
	silent.ServerID, silent.Spec.Votes = 33, 0
	step("lose the vote", "PUT", client.PathMembers+"/id3", silent, 200, "", "add_learner 33")
	silent.Spec.Votes = 1
	step("gain the vote", "PUT", client.PathMembers+"/id3", silent, 200, "", "promote 33")
	f.state.Apply(confdb.Command{ID: "own", Assign: &confdb.Assign{Group: "g1", Node: "id3"}})
	step("leave with a group", "DELETE", client.PathMembers+"/id3", nil, 409, "drain")
	f.state.Apply(confdb.Command{ID: "disown", Assign: &confdb.Assign{Group: "g1", From: 1}})
	step("leave", "DELETE", client.PathMembers+"/id3", nil, 200, "", "remove 33")
	step("leave again", "DELETE", client.PathMembers+"/id3", nil, 200, "")
	step("the leader leaves: it hands over first", "DELETE", client.PathMembers+"/id1", nil, 421, `"leader":"127.0.0.1:2"`, "transfer 2")
	step("no leader any more", "POST", client.PathMembers, request(4), 421, `"leader":"127.0.0.1:2"`)
	f.status.LeaderNode = ""
	step("no leader at all", "POST", client.PathMembers, request(4), 503, "no_quorum")
}

// A vote that is given or taken is told of once something has been committed after it:
// before that, only the leader may know that it was.
func TestVoteIsToldOfOnceItHolds(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	f.status.UpNodes = []string{"id1", "id2"}
	f.submit = func(c confdb.Command) (confdb.Result, error) {
		if c.Nothing {
			f.ops = append(f.ops, "commit")
		}
		return f.state.Apply(c), nil
	}
	m := request(2)
	for votes, want := range [][]string{{"add_learner 2", "commit"}, {"promote 2", "commit"}} {
		f.ops, m.Spec.Votes = nil, votes
		if code, text := ask(t, h, client.RoleAdmin, "PUT", client.PathMembers+"/id2", m); code != 200 || !slices.Equal(f.ops, want) {
			t.Errorf("votes = %d: %d %s, operations %q", votes, code, text, f.ops)
		}
	}
}

// Nobody's vote is taken while too few of the other voters are up, by whichever
// way: then nothing could bring the cluster back. A dead one's is.
func TestNoVoteIsTakenThatIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := formed(t)
		f.status.CaughtUp[3] = true
		step := func(method, path string, body any, want int, word string, ops ...string) {
			t.Helper()
			f.ops = nil
			if code, text := ask(t, h, client.RoleAdmin, method, path, body); code != want || !strings.Contains(text, word) || !slices.Equal(f.ops, ops) {
				t.Errorf("%s %s: %d %s, operations %q", method, path, code, text, f.ops)
			}
		}
		const n2, n3 = client.PathMembers + "/id2", client.PathMembers + "/id3"
		step("POST", client.PathMembers, request(3), 200, "", "add_learner 3")
		step("POST", n3+"/promote", nil, 200, "", "promote 3")
		quiet := request(2)
		quiet.Spec.Votes = 0
		const why = "without n2, 2 votes are left and only 1 of them are up; 2 are needed"
		f.status.UpNodes = []string{"id1", "id2"}
		step("DELETE", n2, nil, 409, why)
		step("PUT", n2, quiet, 409, why)
		step("POST", client.PathNodes+"/id2/evict", client.Order{Reason: "no more"}, 409, why)
		if n := f.state.Nodes["id2"]; n == nil || n.Spec.Votes != 1 || n.Evicting != nil {
			t.Errorf("n2 is %+v", n)
		}
		go func() { // n3 was away for a moment
			time.Sleep(time.Second)
			f.mu.Lock()
			f.status.UpNodes = []string{"id1", "id2", "id3"}
			f.mu.Unlock()
		}()
		step("PUT", n2, quiet, 200, "", "add_learner 2")
		step("PUT", n2, request(2), 200, "", "promote 2")
		f.status.UpNodes = []string{"id1"}
		go func() { // who does not lead any more doesn't know who is up
			time.Sleep(time.Second)
			f.mu.Lock()
			f.status.Driver.Role, f.status.LeaderNode = confdb.Follower, "id2"
			f.mu.Unlock()
		}()
		step("DELETE", n3, nil, 421, "not_leader")
		f.status.Driver.Role, f.status.LeaderNode = confdb.Leader, "id1"
		f.status.UpNodes = []string{"id1", "id2"}
		step("DELETE", n3, nil, 200, "", "remove 3") // the one that is down
	})
}

// Votes are taken in turn: of two that each leave enough, the second one sees what the
// first has left.
func TestVotesAreTakenInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := formed(t)
		f.status.CaughtUp[3], f.status.CaughtUp[4] = true, true
		for n := 3; n <= 4; n++ {
			for _, path := range []string{client.PathMembers, fmt.Sprintf("%s/id%d/promote", client.PathMembers, n)} {
				if code, text := ask(t, h, client.RoleAdmin, "POST", path, request(n)); code != 200 {
					t.Fatal(code, text)
				}
			}
		}
		f.ops = nil // of four, n4 is down
		left, answer := make(chan struct{}), ""
		f.submit = func(c confdb.Command) (confdb.Result, error) {
			f.submit = nil
			f.mu.Unlock()
			go func() {
				defer close(left)
				_, answer = ask(t, h, client.RoleAdmin, "DELETE", client.PathMembers+"/id3", nil)
			}()
			select { // n3 leaves between the look at n2's vote and its end
			case <-left:
			case <-time.After(time.Second):
			}
			f.mu.Lock()
			return f.state.Apply(c), nil
		}
		quiet := request(2)
		quiet.Spec.Votes = 0
		if code, text := ask(t, h, client.RoleAdmin, "PUT", client.PathMembers+"/id2", quiet); code != 200 {
			t.Error(code, text)
		}
		<-left
		if !slices.Equal(f.ops, []string{"add_learner 2"}) || !strings.Contains(answer, "without n3, 2 votes are left and only 1 of them are up") {
			t.Errorf("%q, and n3 leaves: %s", f.ops, answer)
		}
	})
}

func TestTheLastVoterStays(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	if code, text := ask(t, h, client.RoleAdmin, "DELETE", client.PathMembers+"/id2", nil); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := ask(t, h, client.RoleAdmin, "DELETE", client.PathMembers+"/id1", nil); code != 409 || !strings.Contains(text, "destroy") {
		t.Errorf("%d %s", code, text)
	}
	if len(f.status.Driver.Voters) != 1 {
		t.Error("it was removed")
	}
}

// A member that has not read its database again is no node that waits to be joined: a
// plan that took it for one showed a cluster that is gone.
func TestMemberThatHasNotRead(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	h := New(f)
	for problem, hint := range map[string]string{"": "by itself", "quorum device /dev/q: it is lost": "bring the quorum device back"} {
		f.status.Driver.Former, f.status.Driver.DeviceProblem = true, problem
		for _, path := range []string{client.PathStatus, client.PathConfig, client.PathConfig + "?fresh=1", client.PathEvents} {
			code, text := ask(t, h, client.RoleReader, "GET", path, nil)
			if code != 503 || !strings.Contains(text, `"unread"`) || !strings.Contains(text, problem) || !strings.Contains(text, hint) {
				t.Errorf("%s: %d %s", path, code, text)
			}
		}
		code, text := ask(t, h, client.RoleAdmin, "PUT", client.PathChange, client.TakeChange{ID: "a", What: "apply"})
		if code != 503 || !strings.Contains(text, `"unread"`) {
			t.Errorf("the change lease: %d %s", code, text)
		}
	}
}

func TestWaitingNode(t *testing.T) {
	t.Parallel()
	h := New(newFake(t))
	for _, path := range []string{client.PathStatus, client.PathConfig, client.PathEvents} {
		if code, text := ask(t, h, client.RoleReader, "GET", path, nil); code != 503 || !strings.Contains(text, `"waiting"`) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	code, text := ask(t, h, client.RoleReader, "GET", client.PathSelf, nil)
	var self client.Self
	if err := json.Unmarshal([]byte(text), &self); err != nil || code != 200 || self.Membership != "waiting" || self.PID != 11 || self.ServerID != 1 {
		t.Errorf("%d %s", code, text)
	}
}

// The configuration tells where a failure took a group from, until it is back.
func TestConfigTellsHome(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	f.state.Apply(confdb.Command{ID: "a", Assign: &confdb.Assign{Group: "g1", Node: "id2"}})
	for _, tc := range []struct{ to, home string }{{"id1", "n2"}, {"id2", ""}} {
		g := f.state.Groups["g1"]
		f.state.Apply(confdb.Command{ID: "to " + tc.to, Assign: &confdb.Assign{Group: "g1", From: g.Owner.Epoch, Node: tc.to, Failover: true}})
		var conf client.Config
		code, text := ask(t, h, client.RoleReader, "GET", client.PathConfig, nil)
		if err := json.Unmarshal([]byte(text), &conf); err != nil || code != 200 || conf.Groups[0].Home != tc.home {
			t.Errorf("on %s: %d %s, want home %q", tc.to, code, text, tc.home)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	f.facts.NoReset, f.facts.NotReady = "no reset", "not ready"
	f.state.Apply(confdb.Command{ID: "v", SetView: &confdb.SetView{Up: []string{"id1", "id2"}}})
	f.state.Apply(confdb.Command{ID: "a", Assign: &confdb.Assign{Group: "g1", Node: "id2"}})
	f.state.Apply(confdb.Command{ID: "p", Author: "ann", Reason: "disks", PauseNode: &confdb.PauseNode{Node: "id2"}})
	look := func() (s client.Status) {
		t.Helper()
		code, text := ask(t, h, client.RoleReader, "GET", client.PathStatus, nil)
		if err := json.Unmarshal([]byte(text), &s); err != nil || code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		return s
	}
	for _, n := range look().Nodes {
		if own := n.Name == "n1"; (n.NoReset == "no reset") != own || (n.NotReady == "not ready") != own {
			t.Errorf("%s: %q, %q", n.Name, n.NoReset, n.NotReady)
		}
	}
	states := func(s client.Status) map[string]string {
		m := map[string]string{"web": s.Groups[0].State + " on " + s.Groups[0].Owner}
		for _, n := range s.Nodes {
			m[n.Name] = n.State + " " + n.Reason
		}
		return m
	}
	s := look()
	if diff := cmp.Diff(map[string]string{"n1": "up ", "n2": "paused paused by ann: disks", "web": s.Groups[0].State + " on n2"}, states(s)); diff != "" {
		t.Error(diff)
	}
	if s.Quorum != (client.StatusQuorum{Model: spec.MajorityNodeSet, Have: true, Votes: 2, Up: 2, Needed: 2}) || s.Leader != "n1" || s.Nodes[0].PID != 11 {
		t.Errorf("%+v", s)
	}
	f.state.Apply(confdb.Command{ID: "v2", SetView: &confdb.SetView{From: f.state.View.Epoch, Up: []string{"id1"}}})
	if got := states(look()); got["n2"] != "down " {
		t.Errorf("%v", got)
	}
	f.status.Quorum = false
	s = look()
	if got := states(s); !strings.HasPrefix(got["n2"], "unknown") || got["n1"] != "up " || got["web"] != "unknown on n2" || s.Groups[0].Reason == "" {
		t.Errorf("%v", got)
	}
	// What is this node's own goes with its lease, though no update can say so.
	g := f.state.Groups["g1"]
	g.Owner.Node, g.Owner.StopWithin, g.Owner.Kill, g.State = "id1", spec.Duration(time.Hour), spec.Duration(time.Hour), spec.StateOnline
	g.Resources = []confdb.ResourceState{{Name: g.Spec.Resources[0].Name, State: spec.StateOnline}}
	now := boottime.Now()
	for _, tc := range []struct {
		lease spec.Instant
		want  string
	}{
		{now.Add(time.Hour), spec.StateOnline}, {now - 1, spec.StateOfflinePending}, {now.Add(-3 * time.Hour), spec.StateOffline}, {0, spec.StateUnknown},
	} {
		f.status.LeaseEnd = tc.lease
		if s := look(); s.Groups[0].State != tc.want || s.Groups[0].Resources[0].State != tc.want || (s.Groups[0].Reason == "") != (tc.want == spec.StateOnline) {
			t.Errorf("lease %d of %d, no quorum: %+v", tc.lease, now, s.Groups[0])
		}
	}
	f.status.Quorum = true // its lease is a moment late: the database has the word
	if s := look(); s.Groups[0].State != spec.StateOnline {
		t.Errorf("with quorum: %+v", s.Groups[0])
	}
}

func TestAuthors(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	ask(t, h, client.RoleOperator, "POST", client.PathNodes+"/n2/pause", client.Order{Reason: "disks\x1b[31m"}, client.HeaderAuthor, "bob")
	if p := f.state.Nodes["id2"].Paused; p == nil || p.Author != "bob (ann)" || p.Reason != "disks [31m" {
		t.Errorf("%+v", p)
	}
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	last := f.state.LastEvent()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{OrganizationalUnit: []string{client.RoleReader}}}}}}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+client.PathEvents, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", fmt.Sprint(last-1))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	want := func(id uint64) {
		t.Helper()
		var text strings.Builder
		for buf := make([]byte, 1); !strings.HasSuffix(text.String(), "\n\n"); {
			if _, err := res.Body.Read(buf); err != nil {
				t.Fatal(err)
			}
			text.Write(buf)
		}
		if !strings.HasPrefix(text.String(), fmt.Sprintf("id: %d\ndata: {", id)) {
			t.Errorf("got %q, want event %d", text.String(), id)
		}
	}
	want(last)
	if _, err := f.Submit(t.Context(), confdb.Command{ID: "e", Event: &confdb.Event{Kind: "k", Text: "t"}}); err != nil {
		t.Fatal(err)
	}
	want(last + 1)

	// A node that has lost its quorum refuses, and ends streams, where that was asked.
	lone := func() (int, string) {
		return ask(t, h, client.RoleReader, "GET", client.PathEvents+"?quorum=1", nil)
	}
	if code, text := lone(); code != 200 {
		t.Errorf("with quorum: %d %s", code, text)
	}
	req = req.Clone(t.Context())
	req.URL.RawQuery = "quorum=1"
	req.Header.Set("Last-Event-ID", fmt.Sprint(last))
	if res, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	want(last + 1)
	f.mu.Lock()
	f.status.Quorum = false
	f.mu.Unlock()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("the stream went on without quorum: %q, %v", rest, err)
	}
	if code, text := lone(); code != 503 || !strings.Contains(text, "no_quorum") {
		t.Errorf("without quorum: %d %s", code, text)
	}
	if code, _ := ask(t, h, client.RoleReader, "GET", client.PathEvents, nil); code != 200 {
		t.Errorf("without quorum, all that is known: %d", code)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	dir := filepath.Join(f.facts.LogDir, "web")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "vip.log")
	if err := os.WriteFile(path, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, text := ask(t, h, client.RoleReader, "GET", client.PathLogs+"/g1/vip?bytes=4", nil); code != 200 || text != "two" {
		t.Errorf("%d %q", code, text)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{OrganizationalUnit: []string{client.RoleReader}}}}}}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+client.PathLogs+"/web/vip?follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, 0, 64)
	until := func(want string) {
		t.Helper()
		for buf := make([]byte, 64); string(got) != want; {
			n, err := res.Body.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil || !strings.HasPrefix(want, string(got)) {
				t.Fatalf("got %q, want %q, %v", got, want, err)
			}
		}
	}
	until("one\ntwo\n")
	// It is rotated between two looks: what came before belongs to the answer too.
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("three\n"); err != nil {
		t.Fatal(err)
	}
	file.Close()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("four\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	until("one\ntwo\nthree\nfour\n")
}
