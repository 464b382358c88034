package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
)

type dirOptions struct {
	cluster *pki.Identity // that the certificate is of; nil: the cluster
	node    string        // that the certificate is for
	address string
	life    time.Duration
	edit    map[string]string // file -> content; "-": none
	modes   map[string]os.FileMode
}

func makeDir(t *testing.T, id *pki.Identity, o dirOptions) string {
	t.Helper()
	dir := t.TempDir()
	node := pki.NewID()
	if o.cluster == nil {
		o.cluster = id
	}
	if o.node == "" {
		o.node = node
	}
	if o.life == 0 {
		o.life = time.Hour
	}
	if o.address == "" {
		o.address = "127.0.0.1:7999"
	}
	cert, err := o.cluster.NodeCert(o.node, "n1", o.life)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := json.Marshal(fileConfig{ClusterID: id.ID, Cluster: id.Name, NodeID: node, Name: "n1", Address: o.address})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{configFile: string(conf), certFile: string(cert.Cert), keyFile: string(cert.Key), caFile: string(id.CACert), frameKey: id.KeyText()}
	for name, text := range o.edit {
		files[name] = text
	}
	for name, text := range files {
		if text == "-" {
			continue
		}
		mode := os.FileMode(0o600)
		if m, ok := o.modes[name]; ok {
			mode = m
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func identity(t *testing.T) *pki.Identity {
	t.Helper()
	id, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDirectoryIsCheckedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	id, other := identity(t), identity(t)
	for _, tc := range []struct {
		name string
		o    dirOptions
		want []string
	}{
		{"good", dirOptions{}, nil},
		{"files missing, told together", dirOptions{edit: map[string]string{caFile: "-", frameKey: "-"}}, []string{caFile, frameKey, "clusterplan apply"}},
		{"key that others read", dirOptions{modes: map[string]os.FileMode{keyFile: 0o644}}, []string{keyFile, "0644", "chmod 600"}},
		{"configuration that is no JSON", dirOptions{edit: map[string]string{configFile: "{"}}, []string{configFile, "can't be read"}},
		{"configuration with holes", dirOptions{edit: map[string]string{configFile: `{"name":"n1","address":"here"}`}}, []string{"cluster_id", "node_id", `"here"`}},
		{"certificate of another cluster", dirOptions{cluster: other}, []string{"is for the cluster with id " + other.ID, id.ID}},
		{"certificate of another node", dirOptions{node: "aaaaaaaaaaaaaaaa"}, []string{"is for the node with id aaaaaaaaaaaaaaaa"}},
		{"damaged frame key", dirOptions{edit: map[string]string{frameKey: "c2hvcnQ="}}, []string{frameKey, "32 bytes"}},
	} {
		_, err := readFiles(makeDir(t, id, tc.o))
		if (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", tc.name, err, w)
			}
		}
	}
	if _, err := readFiles(filepath.Join(t.TempDir(), "nothing")); err == nil || !strings.Contains(err.Error(), "no node's directory") {
		t.Errorf("no directory: %v", err)
	}
}

// runFails runs an agent that can't start, and returns why.
func runFails(t *testing.T, dir string) string {
	t.Helper()
	err := Run(t.Context(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler), Embedded: true, Program: "/nothing"})
	if err == nil {
		t.Fatal("the agent ran")
	}
	return err.Error()
}

func TestTakenPortNamesTheHolder(t *testing.T) {
	t.Parallel()
	id := identity(t)
	// Of an address that nothing else here connects from: a port that is free for the
	// one protocol may be taken for the other by then.
	tcp, err := net.Listen("tcp", "127.0.55.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.55.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for network, addr := range map[string]string{"tcp": tcp.Addr().String(), "udp": udp.LocalAddr().String()} {
		text := runFails(t, makeDir(t, id, dirOptions{address: addr}))
		for _, want := range []string{network + " " + addr, "taken by process", filepath.Base(os.Args[0])} {
			if !strings.Contains(text, want) {
				t.Errorf("%q lacks %q", text, want)
			}
		}
	}
	if text := runFails(t, makeDir(t, id, dirOptions{address: "192.0.2.7:7001"})); !strings.Contains(text, "no such address") {
		t.Errorf("%q", text)
	}
}

func TestOneAgentADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, pidFile)
	held, err := lockPID(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockPID(path); err == nil || !strings.Contains(err.Error(), "another agent runs") {
		t.Errorf("got %v", err)
	}
	held.Close()
	again, err := lockPID(path)
	if err != nil {
		t.Fatalf("the lock of an agent that is gone holds: %v", err)
	}
	again.Close()
}

func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	id := identity(t)
	dir := makeDir(t, id, dirOptions{})
	f, err := readFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := newCertificate(f, slog.New(slog.DiscardHandler))
	_, first := c.current()
	write := func(node string, life time.Duration, at time.Time) {
		t.Helper()
		cert, err := id.NodeCert(node, "n1", life)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{keyFile: cert.Key, certFile: cert.Cert} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(filepath.Join(dir, certFile), at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(f.conf.NodeID, 9*time.Hour, time.Now().Add(time.Minute))
	_, renewed := c.current()
	if !renewed.until.After(first.until.Add(7 * time.Hour)) {
		t.Errorf("the old certificate (%s) is in use after %s", first.until, renewed.until)
	}
	write("bbbbbbbbbbbbbbbb", 99*time.Hour, time.Now().Add(2*time.Minute))
	if _, now := c.current(); now != renewed {
		t.Error("a certificate of another node was taken")
	}
	write(f.conf.NodeID, -time.Minute, time.Now().Add(3*time.Minute))
	if _, now := c.current(); now != renewed {
		t.Error("a new certificate that has expired was taken")
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 'h', 'i'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		for {
			before := in.Len()
			m, err := readMessage(in)
			if err != nil {
				if errors.Is(err, io.EOF) && before != 0 {
					t.Fatalf("a cut message with %d bytes ended the stream quietly", before)
				}
				return
			}
			if used := before - in.Len(); used != messageStart+len(m.Data) {
				t.Fatalf("a message of %d bytes took %d", len(m.Data), used)
			}
		}
	})
}

// An agent that was killed may leave its lock to a process that it was starting,
// for a moment: the next one waits for that.
func TestPIDFileOfOneJustKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.pid")
	first, err := lockPID(path)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(lockPatience/30, func() { first.Close() })
	second, err := lockPID(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
