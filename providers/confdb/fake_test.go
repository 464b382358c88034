package confdb

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// database of a fake cluster, which all its nodes share. Nothing runs; a
// group's state is what outcome says.
type fakeDB struct {
	mu      sync.Mutex
	conf    client.Config
	quorum  bool
	outcome map[string]client.StatusGroup // by group name; default: online
	calls   []string

	under    []string // change leases of the writes
	older    bool     // the agents don't know it
	renewing bool     // its holder renews it all the time
	stays    bool     // what a drained node owns does not leave it
	told     func()   // before each answer of the status; nil: nothing
}

// fakeNode is one agent of it.
type fakeNode struct {
	db     *fakeDB
	id     string
	name   string
	server uint64
	member bool
	unread bool // was a member, by its directory
	looks  int  // at an unread one until it has read; 0: it never does
	silent bool
	hangs  bool           // takes a call and never answers
	held   atomic.Int32   // calls that it holds
	lag    *client.Config // answers this old copy, without quorum
	http   *httptest.Server
}

type fakeCluster struct {
	t        *testing.T
	identity *pki.Identity
	db       *fakeDB
	nodes    []*fakeNode
	dir      *providers.Directory
}

func newFake(t *testing.T, names ...string) *fakeCluster {
	t.Helper()
	identity, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeCluster{t: t, identity: identity, dir: &providers.Directory{},
		db: &fakeDB{quorum: true, outcome: map[string]client.StatusGroup{}}}
	for i, name := range names {
		n := &fakeNode{db: f.db, id: pki.NewID(), name: name, server: uint64(i + 1)}
		cert, err := identity.NodeCert(n.id, name, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := cert.TLS()
		if err != nil {
			t.Fatal(err)
		}
		conf, err := pki.ServerConfig(identity.CACert, identity.ID, pair, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		n.http = httptest.NewUnstartedServer(n)
		n.http.Listener.Close()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.http.Listener = tls.NewListener(l, conf)
		n.http.Start()
		t.Cleanup(n.http.Close)
		f.nodes = append(f.nodes, n)
		f.dir.Put(providers.Entry{NodeID: n.id, Name: name, Endpoint: l.Addr().String(), ServerID: n.server,
			Spec: spec.Node{Name: name, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember}})
	}
	return f
}

func (f *fakeCluster) provider() *Provider {
	p := New()
	err := p.Configure(noValue, providers.Env{Identity: func() *pki.Identity { return f.identity }, Nodes: f.dir})
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// up makes the nodes members of a cluster.
func (f *fakeCluster) up() {
	f.db.conf.Cluster = spec.Cluster{ID: f.identity.ID, Name: "test", ManagedBy: spec.ManagedBy}
	f.db.conf.Revision = 7
	for _, e := range f.dir.All() {
		s := e.Spec
		s.ID = e.NodeID
		f.db.conf.Members = append(f.db.conf.Members, client.ConfigMember{State: "voter", Node: spec.NodeUp,
			MemberRequest: client.MemberRequest{Spec: s, ServerID: e.ServerID, Endpoint: e.Endpoint}})
	}
	for _, n := range f.nodes {
		n.member = true
	}
}

func (n *fakeNode) fail(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(client.Error{Code: code, Message: "the fake says " + code})
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.hangs {
		n.held.Add(1)
		<-r.Context().Done()
		n.held.Add(-1)
		return
	}
	db := n.db
	db.mu.Lock()
	defer db.mu.Unlock()
	if n.silent {
		panic(http.ErrAbortHandler)
	}
	if r.Method != http.MethodGet {
		db.calls = append(db.calls, r.Method+" "+r.URL.Path)
		db.under = append(db.under, r.Header.Get(client.HeaderChange))
		if r.URL.Path == client.PathBootstrap {
			var b client.Bootstrap
			_ = json.NewDecoder(r.Body).Decode(&b)
			if n.unread {
				n.fail(w, http.StatusBadRequest, "bad_request")
				return
			}
			n.member = true
			db.conf.Cluster, db.conf.Revision = b.Cluster, 1
			n.put(b.Member, "voter")
			_ = json.NewEncoder(w).Encode(client.Done{})
			return
		}
	}
	if r.URL.Path == client.PathSelf {
		s := client.Self{NodeID: n.id, Name: n.name, ServerID: n.server, Membership: "waiting", Quorum: n.member && db.quorum, Leader: n.name}
		if n.member {
			s.Membership = "voter"
		} else if n.unread {
			s.Membership = "unread"
		}
		if !db.older {
			s.Features = []string{client.FeatureChange}
		}
		_ = json.NewEncoder(w).Encode(s)
		return
	}
	if !n.member {
		code := "waiting"
		if n.unread && !db.older {
			code = "unread"
		}
		n.fail(w, http.StatusServiceUnavailable, code)
		if n.looks--; n.looks == 0 {
			n.member = true
		}
		return
	}
	if r.Method != http.MethodGet && !db.quorum || r.URL.Query().Has("fresh") && !db.quorum {
		n.fail(w, http.StatusServiceUnavailable, "no_quorum")
		return
	}
	kind, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	id, verb, _ := strings.Cut(id, "/")
	var answer any = client.Done{}
	switch r.Method + " " + kind {
	case "GET config":
		if db.renewing && db.conf.Change != nil {
			renewed := *db.conf.Change
			renewed.Renewed++
			db.conf.Change = &renewed
		}
		conf := db.conf
		if conf.Quorum = db.quorum; n.lag != nil {
			conf = *n.lag
		}
		answer = conf
	case "GET status":
		if db.told != nil {
			db.told()
		}
		st := client.Status{Quorum: client.StatusQuorum{Have: db.quorum}}
		for _, m := range db.conf.Members {
			st.Nodes = append(st.Nodes, client.StatusNode{Name: m.Spec.Name, State: m.Node})
		}
		for _, g := range db.conf.Groups {
			s, ok := db.outcome[g.Spec.Name]
			if !ok {
				s = client.StatusGroup{State: spec.StateOnline, Owner: g.Owner}
			}
			s.Name = g.Spec.Name
			st.Groups = append(st.Groups, s)
		}
		answer = st
	case "PUT change":
		var t client.TakeChange
		_ = json.NewDecoder(r.Body).Decode(&t)
		h := db.conf.Change
		if h != nil && h.ID != t.ID && (t.From == "" || t.From != h.ID) && (t.Seen == 0 || t.Seen != h.Renewed) || t.Renew && (h == nil || h.ID != t.ID) {
			n.fail(w, http.StatusConflict, client.CodeLocked)
			return
		}
		db.conf.Revision++
		db.conf.Change = &client.Change{ID: t.ID, What: t.What, Renewed: db.conf.Revision, TermMS: t.TermMS}
	case "DELETE change":
		db.conf.Change = nil
	case "PUT cluster":
		_ = json.NewDecoder(r.Body).Decode(&db.conf.Cluster)
	case "PUT groups":
		var g spec.Group
		_ = json.NewDecoder(r.Body).Decode(&g)
		i := slices.IndexFunc(db.conf.Groups, func(c client.ConfigGroup) bool { return c.Spec.ID == id })
		if i < 0 {
			db.conf.Groups = append(db.conf.Groups, client.ConfigGroup{Want: g.PersistentState, State: spec.StateOnline})
			i = len(db.conf.Groups) - 1
		}
		db.conf.Groups[i].Spec = g
	case "PUT fences":
		var f spec.Fence
		_ = json.NewDecoder(r.Body).Decode(&f)
		shown := f.Shown()
		for name, value := range f.Parameters { // as for an admin
			if f.IsSensitive(name) {
				shown.Parameters[name] = client.SealParameter(f.ID, name, value)
			}
			if slices.ContainsFunc(db.conf.Fences, func(c client.ConfigFence) bool { return c.Spec.ID == id && c.Spec.Parameters[name] == value }) {
				shown.Parameters[name] = value // its own secret
			}
		}
		i := slices.IndexFunc(db.conf.Fences, func(c client.ConfigFence) bool { return c.Spec.ID == id })
		if i < 0 {
			db.conf.Fences = append(db.conf.Fences, client.ConfigFence{})
			i = len(db.conf.Fences) - 1
		}
		db.conf.Fences[i].Spec = shown
	case "DELETE fences":
		db.conf.Fences = slices.DeleteFunc(db.conf.Fences, func(c client.ConfigFence) bool { return c.Spec.ID == id })
	case "DELETE groups":
		db.conf.Groups = slices.DeleteFunc(db.conf.Groups, func(c client.ConfigGroup) bool { return c.Spec.ID == id })
	case "POST members":
		if verb == "promote" {
			break
		}
		var m client.MemberRequest
		_ = json.NewDecoder(r.Body).Decode(&m)
		n.put(m, "learner")
	case "POST nodes":
		var o client.Order
		_ = json.NewDecoder(r.Body).Decode(&o)
		for i := range db.conf.Members {
			m := &db.conf.Members[i]
			if m.Spec.ID != id {
				continue
			}
			if m.Drained, m.Paused = verb == "drain", nil; verb != "resume" {
				m.Paused = &client.Intent{Author: "apply", Reason: o.Reason}
			}
			for g := range db.conf.Groups {
				if db.conf.Groups[g].Owner == m.Spec.Name && m.Drained && !db.stays {
					db.conf.Groups[g].Owner = ""
				}
			}
		}
	default:
		n.fail(w, http.StatusNotFound, "not_found")
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (n *fakeNode) put(m client.MemberRequest, state string) {
	n.db.conf.Members = append(n.db.conf.Members, client.ConfigMember{MemberRequest: m, State: state})
}
