package agent

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A program that opens connections and never closes them gets an answer that
// says so, and a closed one makes room.
func TestGroupSocketIsLimited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := &apps{private: dir, shared: filepath.Join(dir, "shared"), log: slog.New(slog.DiscardHandler)}
	path := filepath.Join(dir, "group-g1.sock")
	l, err := a.listen(appSocket{group: "g1", path: path})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	ask := func() (net.Conn, *http.Response) {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: node\r\n\r\n") // one that is turned away may not take it
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, res
	}
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for i := range maxAppConns {
		c, res := ask()
		held = append(held, c)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: %s", i+1, res.Status)
		}
	}
	c, res := ask()
	defer c.Close()
	var e struct{ Code, Message, Hint string }
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || res.StatusCode != http.StatusServiceUnavailable || e.Code != "busy" || !strings.Contains(e.Message, "256 connections") || e.Hint == "" {
		t.Errorf("one too many: %s %+v, %v", res.Status, e, err)
	}
	held[0].Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, res := ask()
		c.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a closed connection makes no room")
		}
	}
}
