package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func identity(t *testing.T, name string) *Identity {
	t.Helper()
	id, err := NewIdentity(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func pair(t *testing.T) func(c *Cert, err error) tls.Certificate {
	return func(c *Cert, err error) tls.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

func TestIdentity(t *testing.T) {
	id := identity(t, "payments")
	if len(id.ID) != 16 || len(id.Key) != 32 || id.ID == identity(t, "payments").ID {
		t.Fatalf("id %q, key of %d bytes", id.ID, len(id.Key))
	}
	ca, err := parseCert(id.CACert)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(ca.NotAfter); !ca.IsCA || left < CALife-time.Hour || left > CALife || ca.Subject.Organization[0] != id.ID {
		t.Errorf("authority %v, valid for %v", ca.Subject, left)
	}
	again, err := ParseIdentity(id.ID, id.Name, string(id.CACert), string(id.CAKey), id.KeyText())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.NodeCert("00000000000000a1", "n1", NodeLife); err != nil {
		t.Error(err)
	}
	other := identity(t, "other")
	for name, parse := range map[string]func() (*Identity, error){
		"another's key": func() (*Identity, error) {
			return ParseIdentity(id.ID, "", string(id.CACert), string(other.CAKey), id.KeyText())
		},
		"no certificate": func() (*Identity, error) {
			return ParseIdentity(id.ID, "", "no", string(id.CAKey), id.KeyText())
		},
		"no key": func() (*Identity, error) {
			return ParseIdentity(id.ID, "", string(id.CACert), "no", id.KeyText())
		},
		"a short key": func() (*Identity, error) {
			return ParseIdentity(id.ID, "", string(id.CACert), string(id.CAKey), "AAAA")
		},
	} {
		if _, err := parse(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestCerts(t *testing.T) {
	id := identity(t, "c")
	node, err := id.NodeCert("00000000000000a1", "n-a", NodeLife)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseCert(node.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if p.ClusterID != id.ID || p.Role != RoleNode || p.ID != "00000000000000a1" || p.Name != "n-a" || !p.NotAfter.Equal(node.NotAfter.Truncate(time.Second).UTC()) {
		t.Errorf("peer %+v", p)
	}
	client, err := id.ClientCert("anna@host", "operator", ClientLife)
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := ParseCert(client.Cert); p.Role != "operator" || p.ID != "anna@host" || p.Name != "anna@host" {
		t.Errorf("peer %+v", p)
	}
	if block, _ := pem.Decode(client.Key); block == nil || block.Type != "PRIVATE KEY" {
		t.Error("the key is no PKCS 8")
	}
	if _, err := id.ClientCert("x", RoleNode, ClientLife); err == nil {
		t.Error("a client got a node's role")
	}
	if _, err := id.NodeCert("", "n", NodeLife); err == nil {
		t.Error("a node without id got a certificate")
	}
	if _, err := ParseCert([]byte("garbage")); err == nil {
		t.Error("garbage is a certificate")
	}
}

func TestRenewNeeded(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(90 * time.Hour)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {60 * time.Hour, false}, {60*time.Hour + time.Second, true}, {91 * time.Hour, true}} {
		if got := RenewNeeded(from, to, from.Add(c.after)); got != c.want {
			t.Errorf("after %v: %v", c.after, got)
		}
	}
}

// shake makes a connection and lets each side read a byte of the other, as TLS
// 1.3 tells a client that it was refused only when it reads.
func shake(t *testing.T, server, client *tls.Config) (peer Peer, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		s := tls.Server(c, server)
		if serverErr = s.Handshake(); serverErr == nil {
			peer, _ = PeerOfConn(s.ConnectionState())
			_, serverErr = s.Write([]byte("x"))
			s.Read(make([]byte, 1))
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(raw, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	raw.Close()
	<-done
	return peer, serverErr, clientErr
}

func TestHandshakes(t *testing.T) {
	ours, theirs := identity(t, "ours"), identity(t, "theirs")
	get := pair(t)
	n1 := get(ours.NodeCert("00000000000000a1", "n1", NodeLife))
	admin := get(ours.ClientCert("anna", "admin", ClientLife))
	// One authority, two clusters: nothing that could happen by itself.
	twin := *ours
	twin.ID = "00000000000000ff"

	for _, c := range []struct {
		name         string
		server       tls.Certificate
		client       *tls.Certificate
		node         string
		server_      error  // what the server finds wrong
		client_      error  // what the client finds wrong, after Explain
		words        string // in that error
		wantPeerRole string
	}{
		{name: "any node", server: n1, client: &admin, wantPeerRole: "admin"},
		{name: "this node", server: n1, client: &admin, node: "00000000000000a1", wantPeerRole: "admin"},
		{name: "a node calls", server: n1, client: ptr(get(ours.NodeCert("00000000000000a2", "n2", NodeLife))), wantPeerRole: "node"},
		{name: "another node", server: n1, client: &admin, node: "00000000000000a2", client_: ErrWrongNode, words: "node 00000000000000a1 (n1), wanted 00000000000000a2"},
		{name: "no certificate", server: n1, client: &tls.Certificate{}, client_: ErrNoCertificate, words: "asks for a certificate"},
		{name: "a foreign client", server: n1, client: ptr(get(theirs.ClientCert("eve", "admin", ClientLife))), client_: ErrForeign, words: "is this the state of the cluster"},
		{name: "a client of the twin", server: n1, client: ptr(get(twin.ClientCert("eve", "admin", ClientLife))), server_: ErrForeign, client_: ErrForeign},
		{name: "an expired client", server: n1, client: ptr(get(ours.ClientCert("anna", "admin", -time.Minute))), client_: ErrExpired, words: "clocks"},
		{name: "a foreign server", server: get(theirs.NodeCert("00000000000000a1", "n1", NodeLife)), client: &admin, client_: ErrForeign, words: "of n1 is signed by an authority that this cluster (" + ours.ID + ") doesn't know"},
		{name: "a server of the twin", server: get(twin.NodeCert("00000000000000a1", "n1", NodeLife)), client: &admin, client_: ErrForeign, words: "is for cluster 00000000000000ff, this is " + ours.ID},
		{name: "an expired server", server: get(ours.NodeCert("00000000000000a1", "n1", -time.Minute)), client: &admin, client_: ErrExpired, words: "that of n1 ended at"},
		{name: "a client that serves", server: admin, client: &admin, client_: errAny, words: "anna"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc, err := ServerConfig(ours.CACert, ours.ID, c.server, "h2")
			if err != nil {
				t.Fatal(err)
			}
			cc, err := ClientConfig(ours.CACert, ours.ID, *c.client, c.node, "h2")
			if err != nil {
				t.Fatal(err)
			}
			if len(c.client.Certificate) == 0 {
				cc.Certificates = nil
			} else { // also where the server's list of authorities would hold it back
				cc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.client, nil }
			}
			peer, serverErr, clientErr := shake(t, sc, cc)
			clientErr = Explain(clientErr)
			if c.client_ == nil {
				if serverErr != nil || clientErr != nil || peer.Role != c.wantPeerRole || peer.ClusterID != ours.ID {
					t.Fatalf("peer %+v, server: %v, client: %v", peer, serverErr, clientErr)
				}
				return
			}
			if clientErr == nil || serverErr == nil {
				t.Fatalf("the connection stands: server %v, client %v", serverErr, clientErr)
			}
			if c.client_ != errAny && !errors.Is(clientErr, c.client_) || !strings.Contains(clientErr.Error(), c.words) {
				t.Errorf("client: %v", clientErr)
			}
			if c.server_ != nil && !errors.Is(serverErr, c.server_) {
				t.Errorf("server: %v", serverErr)
			}
		})
	}
}

var errAny = errors.New("any")

func ptr[T any](v T) *T { return &v }

// A certificate that is not valid yet is a matter of clocks and says so.
func TestNotYetValid(t *testing.T) {
	id := identity(t, "c")
	c, err := id.ClientCert("anna", "admin", ClientLife)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := parseCert(c.Cert)
	roots, _ := pool(id.CACert)
	_, err = verify([]*x509.Certificate{x}, roots, id.ID, x509.ExtKeyUsageClientAuth, c.NotBefore.Add(-2*time.Second))
	if err == nil || errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), "check the clocks") {
		t.Error(err)
	}
}

// Among nodes the dates don't count, and nobody but nodes gets in.
func TestNodesHandshakes(t *testing.T) {
	ours, theirs := identity(t, "ours"), identity(t, "theirs")
	get := pair(t)
	old1 := get(ours.NodeCert("00000000000000a1", "n1", -2*time.Minute))
	old2 := get(ours.NodeCert("00000000000000a2", "n2", -time.Minute))
	twin := *ours
	twin.ID = "00000000000000ff"
	for _, c := range []struct {
		name           string
		server, client tls.Certificate
		serverErr      string
		clientErr      string
	}{
		{"expired ones", old1, old2, "", ""},
		{"an operator calls", old1, get(ours.ClientCert("anna", "admin", time.Hour)), "role \"admin\"", "bad certificate"},
		{"a foreign node calls", old1, get(theirs.NodeCert("00000000000000a2", "n2", time.Hour)), "authority", "certificate"},
		{"a node of the twin calls", old1, get(twin.NodeCert("00000000000000a2", "n2", time.Hour)), "cluster 00000000000000ff", "certificate"},
		{"a foreign node answers", get(theirs.NodeCert("00000000000000a2", "n2", time.Hour)), old1, "certificate", "authority"},
		{"an operator answers", get(ours.ClientCert("anna", "admin", time.Hour)), old1, "certificate", "anna"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc, err := NodesServerConfig(ours.CACert, ours.ID, c.server, "x")
			if err != nil {
				t.Fatal(err)
			}
			cc, err := NodesClientConfig(ours.CACert, ours.ID, c.client, "x")
			if err != nil {
				t.Fatal(err)
			}
			cc.Certificates, cc.GetClientCertificate = nil, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.client, nil }
			_, serverErr, clientErr := shake(t, sc, cc)
			for _, e := range []struct {
				got  error
				want string
			}{{serverErr, c.serverErr}, {clientErr, c.clientErr}} {
				if (e.got == nil) != (e.want == "") || e.got != nil && !strings.Contains(e.got.Error(), e.want) {
					t.Errorf("server: %v, client: %v", serverErr, clientErr)
				}
			}
		})
	}
}

// Nothing is signed past the authority's end, and nothing after it.
func TestAuthorityEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := identity(t, "c")
		end := time.Now().Add(CALife)
		time.Sleep(CALife - 24*time.Hour)
		c, err := id.NodeCert("00000000000000a1", "n1", NodeLife)
		if err != nil || c.NotAfter.After(end) || RenewNeeded(c.NotBefore, c.NotAfter, time.Now()) {
			t.Errorf("a certificate until %v, the authority ends at %v: %v", c.NotAfter, end, err)
		}
		time.Sleep(24 * time.Hour)
		if _, err := id.NodeCert("00000000000000a1", "n1", NodeLife); err == nil || !strings.Contains(err.Error(), "authority has expired") {
			t.Errorf("signed by an expired authority: %v", err)
		}
	})
}
