package demo

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWeb(t *testing.T) {
	t.Setenv("CLUSTERPLAN_NODE", "n7")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	var said bytes.Buffer // read once Web has ended
	go func() { ended <- Web(ctx, at, &said) }()
	var body []byte
	for end := time.Now().Add(20 * time.Second); len(body) == 0 && time.Now().Before(end); {
		if resp, err := http.Get("http://" + at + "/"); err == nil {
			body, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
	}
	if string(body) != "n7\n" {
		t.Fatalf("it answers %q", body)
	}
	if err := Web(ctx, at, io.Discard); err == nil || !strings.Contains(err.Error(), "choose another --listen") {
		t.Errorf("a port that is taken: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if want := "node n7 answers at http://" + at + "/\n"; !strings.HasSuffix(said.String(), want) {
		t.Errorf("its log says %q, not %q", said.String(), want)
	}
}

// Without a URL the worker is a program that runs, and says why it does nothing.
func waits(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Worker(ctx, "", w); w.Close() }()
	lines := bufio.NewScanner(r)
	if !lines.Scan() || !strings.Contains(lines.Text(), "URL is not set") {
		t.Fatalf("without URL it says %q", lines.Text())
	}
	cancel()
	if err := <-ended; err != nil || lines.Scan() {
		t.Errorf("without URL it ends with %v, after %q", err, lines.Text())
	}
}

// The worker says what it hears when that changes, and nothing else.
func TestWorker(t *testing.T) {
	waits(t)
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		name := "n1"
		if asked.Add(1) > 2 {
			name = "n2"
		}
		io.WriteString(w, name)
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Worker(ctx, srv.URL, w) }()
	lines := bufio.NewScanner(r)
	for _, want := range []string{`200 OK: "n1"`, `200 OK: "n2"`} {
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), want) {
			t.Fatalf("it says %q, want %s", lines.Text(), want)
		}
	}
	if n := asked.Load(); n < 3 {
		t.Errorf("it has asked %d times", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
