package agent_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// embedded is an agent in this process, which waits to be joined. Its monitor
// can't start: it runs no group.
func embedded(t *testing.T, id *pki.Identity, dir string) (endpoint string) {
	t.Helper()
	endpoint = freePort(t, "127.0.0.1")
	writeNode(t, dir, id, pki.NewID(), "n1", endpoint, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Config{Dir: dir, Log: slog.New(slog.DiscardHandler), API: api.Handler, Embedded: true,
			Program: "/nothing", Ready: func(*agent.Node) { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended: %v", err)
		}
	})
	return endpoint
}

func callerTLS(t *testing.T, trust, signer *pki.Identity, role string, life time.Duration) *tls.Config {
	t.Helper()
	cert, err := signer.ClientCert("tester", role, life)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		t.Fatal(err)
	}
	conf, err := pki.ClientConfig(trust.CACert, trust.ID, pair, "")
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	id, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewIdentity("other")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := embedded(t, id, filepath.Join(t.TempDir(), "n1"))
	ask := func(conf *tls.Config) error {
		c := client.New(client.Options{Endpoints: []string{endpoint}, TLS: conf})
		defer c.Close()
		_, err := c.Self(t.Context(), endpoint)
		return err
	}
	good := callerTLS(t, id, id, client.RoleReader, time.Hour)
	if err := ask(good); err != nil {
		t.Fatal(err)
	}

	none, forced := good.Clone(), callerTLS(t, id, other, client.RoleAdmin, time.Hour)
	none.Certificates = nil
	foreign := forced.Certificates[0]
	forced.Certificates = nil
	forced.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }
	for name, conf := range map[string]*tls.Config{"no": none, "a foreign": forced, "an expired": callerTLS(t, id, id, client.RoleAdmin, -time.Minute)} {
		err := ask(conf)
		var e *client.Error
		if !errors.As(err, &e) || e.Status != http.StatusUnauthorized || !strings.Contains(e.Message, endpoint) || e.Hint == "" {
			t.Errorf("%s certificate: %v", name, err)
		}
	}
	if err := ask(callerTLS(t, other, id, client.RoleReader, time.Hour)); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("a caller that wants another cluster: %v", err)
	}

	reader := client.New(client.Options{Endpoints: []string{endpoint}, TLS: good})
	defer reader.Close()
	_, err = reader.Online(t.Context(), "web", client.Order{})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != http.StatusForbidden || !strings.Contains(err.Error(), "role reader") {
		t.Errorf("a reader's order: %v", err)
	}

	// Who is no node may not speak to the database.
	stream := callerTLS(t, id, id, client.RoleAdmin, time.Hour)
	stream.NextProtos = []string{"clusterplan-raft/1"}
	conn, err := tls.Dial("tcp", endpoint, stream)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("an admin on the nodes' stream: %v", err)
	}
}

func TestGarbageOnThePorts(t *testing.T) {
	t.Parallel()
	id, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := embedded(t, id, filepath.Join(t.TempDir(), "n1"))
	node, err := id.NodeCert(pki.NewID(), "n2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := node.TLS()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := pki.ClientConfig(id.CACert, id.ID, pair, "", "clusterplan-raft/1")
	if err != nil {
		t.Fatal(err)
	}
	garbage := make([]byte, 4096)
	_, _ = rand.Read(garbage)
	for i := range 20 {
		u, err := net.Dial("udp", endpoint)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = u.Write(garbage[:i*60])
		u.Close()
		c, err := net.Dial("tcp", endpoint)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(garbage[:i*200])
		c.Close()
		if i%5 == 0 { // of a node, and nonsense all the same
			s, err := tls.Dial("tcp", endpoint, stream)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(garbage)
			s.Close()
		}
	}
	c := client.New(client.Options{Endpoints: []string{endpoint}, TLS: callerTLS(t, id, id, client.RoleReader, time.Hour)})
	defer c.Close()
	self, err := c.Self(t.Context(), endpoint)
	if err != nil || self.Membership != "waiting" {
		t.Errorf("%+v, %v", self, err)
	}
}

func TestLocalSocket(t *testing.T) {
	t.Parallel()
	id, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	// A path that does not fit into a socket's address.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "n1")
	endpoint := embedded(t, id, dir)
	path := filepath.Join(dir, "run", "api.sock")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	c := client.New(client.Options{Socket: path})
	defer c.Close()
	self, err := c.Self(t.Context(), "")
	if err != nil || self.Endpoint != endpoint || self.Program == "" || self.PID != os.Getpid() {
		t.Errorf("%+v, %v", self, err)
	}
	// The socket has the admin's role: this is refused for what it says, not for who asks.
	var e *client.Error
	if _, err := c.Bootstrap(t.Context(), "", client.Bootstrap{}); !errors.As(err, &e) || e.Code != "conflict" {
		t.Errorf("bootstrap of another cluster: %v", err)
	}
}
