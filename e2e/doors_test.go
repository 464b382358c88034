package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Who may do what at an agent's port, and what garbage does to it: nothing.
func TestDoors(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	ours := l.identity()
	foreign, err := pki.NewIdentity("quickstart")
	if err != nil {
		t.Fatal(err)
	}
	stolen := *foreign // the id of our cluster, the authority of another
	stolen.ID = ours.ID
	cert := func(id *pki.Identity, role string, life time.Duration) *tls.Certificate {
		c, err := id.ClientCert("mallory", role, life)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := c.TLS()
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	st := l.status()
	endpoint := l.node("n1").Address
	write := client.PathGroups + "/web/offline"
	tests := []struct {
		name   string
		cert   *tls.Certificate
		method string
		path   string
		status int    // 0: the handshake fails
		code   string // or what the handshake says
	}{
		{"no certificate", nil, "GET", client.PathSelf, 0, "certificate"},
		{"of another cluster", cert(foreign, "admin", time.Hour), "GET", client.PathSelf, 0, "certificate"},
		{"of another authority, with our id", cert(&stolen, "admin", time.Hour), "GET", client.PathSelf, 0, "certificate"},
		{"expired", cert(ours, "admin", -time.Minute), "GET", client.PathSelf, 0, "certificate"},
		{"reader reads", cert(ours, "reader", time.Hour), "GET", client.PathStatus, 200, ""},
		{"reader writes", cert(ours, "reader", time.Hour), "POST", write, 403, "forbidden"},
		{"operator changes the definition", cert(ours, "operator", time.Hour), "PUT", client.PathCluster, 403, "forbidden"},
		{"no such path", cert(ours, "admin", time.Hour), "GET", "/v1/nothing", 404, "not_found"},
		{"no JSON", cert(ours, "admin", time.Hour), "PUT", client.PathCluster, 400, "bad_request"},
	}
	for _, tt := range tests {
		conf, err := pki.ClientConfig(ours.CACert, ours.ID, tls.Certificate{}, "")
		if err != nil {
			t.Fatal(err)
		}
		conf.Certificates = nil
		if tt.cert != nil {
			conf.Certificates = []tls.Certificate{*tt.cert}
		}
		hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://"+endpoint+tt.path, strings.NewReader("{nonsense"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := hc.Do(req)
		if err != nil {
			if tt.status != 0 || !strings.Contains(err.Error(), tt.code) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		var e client.Error
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if res.StatusCode >= 400 {
			err = errors.Join(err, jsonschematest.Check([]string{"error"}, body))
		} else if tt.path == client.PathStatus {
			err = errors.Join(err, jsonschematest.Check([]string{"status"}, body))
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.status == 0 || res.StatusCode != tt.status || e.Code != tt.code {
			t.Errorf("%s: %s, %+v; want %d %s", tt.name, res.Status, e, tt.status, tt.code)
		}
	}

	for _, n := range st.Nodes {
		garbage(t, "tcp", n.Address)
		garbage(t, "udp", n.Address)
		garbage(t, "unix", filepath.Join(l.dir, ".clusterplan", "nodes", n.Name, "run", "api.sock"))
	}
	now := l.status()
	for i, n := range now.Nodes {
		if n.PID != st.Nodes[i].PID || n.MonitorPID != st.Nodes[i].MonitorPID || n.State != "up" {
			t.Errorf("after the garbage %s is %+v, was %+v", n.Name, n, st.Nodes[i])
		}
	}
	for i, g := range now.Groups {
		if g.Epoch != st.Groups[i].Epoch || g.State != "online" {
			t.Errorf("after the garbage %s is %+v, was %+v", g.Name, g, st.Groups[i])
		}
	}
	l.destroyed()
}

// garbage sends random bytes, with the beginnings of what might be understood.
func garbage(t *testing.T, network, address string) {
	t.Helper()
	for i := range 200 {
		dial := new(net.Dialer).DialContext
		if network == "unix" { // its path may be longer than the kernel takes
			dial = func(ctx context.Context, _, path string) (net.Conn, error) { return client.DialSocket(ctx, path) }
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, err := dial(ctx, network, address)
		cancel()
		if err != nil {
			t.Fatalf("connection %d to %s: %v", i, address, err)
		}
		buf := make([]byte, 1+i*7)
		rand.Read(buf)
		for j, head := range [][]byte{nil, {0x16, 3, 1}, []byte("GET /v1/self HTTP/1.1\r\n"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")} {
			if i%4 == j {
				buf = append(bytes.Clone(head), buf...)
			}
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write(buf); err != nil && network == "udp" {
			t.Fatalf("write to %s: %v", address, err)
		}
		conn.Close()
	}
}
