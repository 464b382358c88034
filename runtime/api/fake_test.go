package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// fake is a backend over a real state, with an agreement that always agrees,
// unless it is told otherwise.
type fake struct {
	mu      sync.Mutex
	state   *confdb.State
	status  member.Status
	facts   agent.Facts
	changed chan struct{}
	asked   chan struct{}                                  // of those who wait for a change; room for one
	submit  func(confdb.Command) (confdb.Result, error)    // nil: Apply
	members func(member.Membership) (confdb.Result, error) // nil: as Raft would
	ops     []string
}

const cluster = "c0c0c0c0c0c0c0c0"

func (f *fake) Submit(_ context.Context, c confdb.Command) (confdb.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.submit != nil {
		return f.submit(c)
	}
	r := f.state.Apply(c)
	close(f.changed)
	f.changed = make(chan struct{})
	return r, nil
}

func (f *fake) Membership(_ context.Context, m member.Membership) (confdb.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops = append(f.ops, fmt.Sprintf("%s %d", m.Op, m.Server))
	if f.members != nil {
		return f.members(m)
	}
	d := &f.status.Driver
	without := func(s []uint64) []uint64 {
		return slices.DeleteFunc(slices.Clone(s), func(v uint64) bool { return v == m.Server })
	}
	voters, learners := without(d.Voters), without(d.Learners)
	switch m.Op {
	case "bootstrap":
		d.Role, d.Ready, voters = confdb.Leader, true, []uint64{f.facts.ServerID}
		f.status.LeaderNode, f.status.Quorum = f.facts.NodeID, true
	case "add_learner":
		learners = append(learners, m.Server)
	case "promote":
		voters = append(voters, m.Server)
	case "transfer":
		d.Role, voters = confdb.Follower, d.Voters
		for id, n := range f.state.Nodes {
			if n.ServerID == m.Server {
				f.status.LeaderNode = id
			}
		}
	}
	d.Voters, d.Learners, d.Needed = voters, learners, len(voters)/2+1
	return confdb.Result{}, nil
}

func (f *fake) Bootstrap(ctx context.Context, _ spec.Quorum) (confdb.Result, error) {
	return f.Membership(ctx, member.Membership{Op: "bootstrap"})
}

func (f *fake) Read(_ context.Context, fn func(*confdb.State, member.Status)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f.state, f.status)
	return nil
}

func (f *fake) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case f.asked <- struct{}{}:
	default:
	}
	return f.changed
}

func (f *fake) Facts() agent.Facts { return f.facts }

func newFake(t *testing.T) *fake {
	return &fake{state: confdb.NewState(), changed: make(chan struct{}), asked: make(chan struct{}, 1),
		status: member.Status{Driver: confdb.Status{Role: confdb.Outside, Self: 1}},
		facts:  agent.Facts{ClusterID: cluster, NodeID: "id1", Name: "n1", ServerID: 1, Endpoint: "127.0.0.1:1", PID: 11, MonitorPID: 12, LogDir: t.TempDir()}}
}

// ask makes a request with a role's certificate, as if the handshake were done.
func ask(t *testing.T, h http.Handler, role, method, path string, body any, header ...string) (int, string) {
	t.Helper()
	var in bytes.Buffer
	switch b := body.(type) {
	case nil:
	case string:
		in.WriteString(b)
	default:
		if err := json.NewEncoder(&in).Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, path, &in)
	if role != "" {
		cert := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "ann", OrganizationalUnit: []string{role}}}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func nodeSpec(i int) spec.Node {
	name := fmt.Sprintf("n%d", i)
	return spec.Node{ID: fmt.Sprintf("id%d", i), Addr: addr.Node(name, addr.Key{}), Name: name, Provider: "local", Votes: 1, Role: spec.RoleMember}
}

func request(i int) client.MemberRequest {
	return client.MemberRequest{Spec: nodeSpec(i), ServerID: uint64(i), Endpoint: fmt.Sprintf("127.0.0.1:%d", i), Version: "1"}
}

func testCluster() spec.Cluster {
	return spec.Cluster{ID: cluster, Name: "test", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}
}

func testGroup() spec.Group {
	return spec.Group{ID: "g1", Addr: addr.Group("web", addr.Key{}), Name: "web", PersistentState: spec.WantOnline, Priority: 2000,
		NoQuorum: spec.NoQuorumStop, Failover: spec.Failover{Mode: spec.FailoverAutomatic}, Failback: spec.Failback{Mode: spec.FailbackPrevent},
		Resources: []spec.Resource{{ID: "r1", Addr: addr.Group("web", addr.Key{}).WithResource("vip", addr.Key{}), Name: "vip", Type: "ip_address",
			Attributes: map[string]any{"address": "127.1.1.1"}}}}
}

// formed is a cluster of n1 (leader) and n2, made by the API itself, with a group.
func formed(t *testing.T) (*fake, http.Handler) {
	t.Helper()
	f := newFake(t)
	h := New(f)
	do := func(method, path string, body any) {
		t.Helper()
		if code, text := ask(t, h, client.RoleAdmin, method, path, body); code != 200 {
			t.Fatalf("%s %s: %d %s", method, path, code, text)
		}
	}
	do("POST", client.PathBootstrap, client.Bootstrap{Cluster: testCluster(), Member: request(1)})
	do("POST", client.PathMembers, request(2))
	f.status.CaughtUp = map[uint64]bool{1: true, 2: true}
	f.status.UpNodes = []string{"id1", "id2", "id3"}
	do("POST", client.PathMembers+"/id2/promote", nil)
	do("PUT", client.PathGroups+"/g1", testGroup())
	f.ops = nil
	return f, h
}
