package lsp

import (
	"bytes"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/creachadair/jrpc2"
)

// panicLog fails a test where the server has caught a panic.
func panicLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(panics{t}, nil))
}

type panics struct{ t *testing.T }

func (p panics) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "msg=panic") {
		p.t.Errorf("%s", b)
	}
	return len(b), nil
}

// discard is an editor that doesn't listen.
type discard struct{ io.Writer }

func (discard) Close() error { return nil }

// converse sends a message to a server, framed, and its bytes unframed behind
// it, and waits for the end of the connection.
func converse(t *testing.T, s *server, message string) {
	t.Helper()
	var in bytes.Buffer
	in.WriteString("Content-Length: ")
	in.WriteString(strconv.Itoa(len(message)))
	in.WriteString("\r\n\r\n")
	in.WriteString(message)
	in.WriteString(message)
	frames := newFraming(&in, discard{io.Discard})
	rpc := jrpc2.NewServer(s, &jrpc2.ServerOptions{AllowPush: true, DisableBuiltin: true, Concurrency: 2})
	done := make(chan struct{})
	go func() { frames.pump(); close(done) }()
	rpc.Start(frames)
	_ = rpc.Wait()
	<-done
}
