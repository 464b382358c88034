package agent_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Nobody applied in time: all certificates have expired, and the agents start
// anew with them. The groups run, the database takes updates, and each node
// says what is wrong; a certificate written beside a running agent mends it.
func TestExpiredCertificatesStopNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n1", "")
	r.settled(admin, allUp)
	put := func(n *nodeRig, life time.Duration, at time.Time) {
		writeNode(t, n.dir, r.id, n.id, n.name, n.endpoint, life)
		if err := os.Chtimes(filepath.Join(n.dir, "node.crt"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range r.nodes {
		if code := n.term(t); code != 0 {
			t.Fatalf("%s ends with %d", n.name, code)
		}
		put(n, -time.Minute, time.Now().Add(-time.Minute))
	}
	for _, n := range r.nodes {
		n.start(t)
	}
	local := client.New(client.Options{Socket: filepath.Join(r.node("n2").dir, "run", "api.sock"), Patience: patience})
	defer local.Close()
	st := r.settled(local, func(s client.Status) string {
		if why := allUp(s); why != "" {
			return why
		}
		for _, n := range s.Nodes {
			if !strings.Contains(n.Reason, "certificate has expired") || n.CertificateUntil == nil {
				return n.Name + " says " + n.Reason
			}
		}
		return ""
	})
	// An update goes through the leader, wherever that is, and the group moves.
	to := "n1"
	if st.Groups[0].Owner == to {
		to = "n3"
	}
	if _, err := local.Move(r.ctx(), "web", client.Order{Node: to}); err != nil {
		t.Fatal(err)
	}
	r.answers(to, "")
	if _, err := admin.Self(r.ctx(), r.node("n1").endpoint); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a caller over the network: %v", err)
	}

	for _, n := range r.nodes {
		put(n, time.Hour, time.Now().Add(time.Minute))
	}
	again := r.client(client.RoleAdmin)
	r.settled(again, func(s client.Status) string {
		for _, n := range s.Nodes {
			if _, err := again.Self(r.ctx(), n.Address); err != nil { // who is called looks at its file
				return err.Error()
			}
			if n.Reason != "" {
				return n.Name + " says " + n.Reason
			}
		}
		return allUp(s)
	})
	events, err := again.Events(r.ctx(), 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range events {
		kinds[e.Kind]++
	}
	if kinds["certificate_expired"] != 3 || kinds["certificate_renewed"] != 3 {
		t.Errorf("events: %v", kinds)
	}
}

// Who is no member any more and has an old certificate is told nothing and believed
// nothing: not at the address of a node that is down, and not as one that
// knows a newer frame key.
func TestExpiredStrangerAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	r.settled(admin, allUp)
	gone := r.node("n3")
	gone.kill()

	cert, err := r.id.NodeCert(pki.NewID(), "removed", -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		t.Fatal(err)
	}
	const raft, keys = "clusterplan-raft/1", "clusterplan-keys/1"
	conf, err := pki.NodesServerConfig(r.id.CACert, r.id.ID, pair, raft, keys)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := json.Marshal(confdb.Keyring{Keys: []confdb.FrameKey{{Generation: 9, Key: make([]byte, 32)}}, Send: 9, Oldest: 9, Since: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", gone.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1) // bytes of database messages
	serving, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				defer context.AfterFunc(serving, func() { conn.Close() })()
				secure := tls.Server(conn, conf)
				if secure.Handshake() != nil {
					return
				}
				if secure.ConnectionState().NegotiatedProtocol == keys {
					_, _ = secure.Write(ring)
					_ = secure.CloseWrite()
					return
				}
				if n, _ := io.ReadAtLeast(secure, make([]byte, 1), 1); n > 0 {
					select {
					case got <- n:
					default:
					}
				}
			}()
		}
	}()
	defer l.Close()
	u, err := net.ListenPacket("udp", gone.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	to, err := net.ResolveUDPAddr("udp", r.node("n1").endpoint)
	if err != nil {
		t.Fatal(err)
	}
	cluster := sha256.Sum256([]byte("clusterplan frames of " + r.id.ID))
	packet := append([]byte("CPf\x02"), cluster[:8]...)
	packet = append(packet, 0, 0, 0, 9) // the generation of the key
	packet = append(packet, make([]byte, 64)...)

	said := func(parts ...string) bool { // in one line of a log
		for _, n := range r.nodes[:2] {
			log, _ := os.ReadFile(filepath.Join(n.dir, "agent.log"))
			for line := range strings.Lines(string(log)) {
				if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
					return true
				}
			}
		}
		return false
	}
	const refused, took = "no member (any more)", "frame keys were changed while"
	g := r.webGroup()
	eventually(t, func() string {
		if _, err := u.WriteTo(packet, to); err != nil {
			return err.Error()
		}
		g.Description += "."
		if _, err := admin.PutGroup(r.ctx(), g, 0); err != nil {
			return err.Error()
		}
		switch {
		case len(got) > 0, said(took):
			return ""
		case !said("no stream to a peer", refused), !said("was not to be had", refused):
			return "the stranger was not called, or not refused"
		}
		return ""
	})
	if len(got) > 0 {
		t.Error("a node sends it the database's messages")
	}
	if said(took) {
		t.Error("a node took a frame key from it")
	}
}
