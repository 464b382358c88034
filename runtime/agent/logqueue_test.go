package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// hanging is a log on a disk that hangs until it is let go.
type hanging struct {
	slog.Handler
	let chan struct{}
}

func (h hanging) Handle(ctx context.Context, r slog.Record) error {
	<-h.let
	return h.Handler.Handle(ctx, r)
}

func TestLogNeverWaitsForItsFile(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	let := make(chan struct{})
	q := newLogQueue(hanging{slog.NewTextHandler(&out, nil), let})
	log := slog.New(q)
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		log.Debug("not wanted")
		log.With("node", "n1").WithGroup("g").Info("first", "a", 1)
		for range maxLines + 10 {
			log.Info("more")
		}
	}()
	select {
	case <-logged:
	case <-time.After(30 * time.Second):
		t.Fatal("logging waits")
	}
	q.finish(0) // in vain
	close(let)
	q.finish(30 * time.Second)
	log.Info("too late")
	<-q.done
	text := out.String()
	if n := strings.Count(text, "msg=more"); n < maxLines-1 || n > maxLines+1 || !strings.Contains(text, fmt.Sprint("lines=", maxLines+10-n)) {
		t.Errorf("%d lines of %d were kept", n, maxLines+10)
	}
	for _, want := range []string{"msg=first", "lines were lost"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, not := range []string{"not wanted", "too late"} {
		if strings.Contains(text, not) {
			t.Errorf("%q was written", not)
		}
	}
}
