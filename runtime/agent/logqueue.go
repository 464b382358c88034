package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLines  = 1024            // that wait to be written
	lastLines = 5 * time.Second // for them to be written at the end
)

// logQueue is a handler that never makes who logs wait: the log is a file, and a
// file on a busy disk can hold up a write for longer than a lease. Another
// goroutine writes. What comes while the queue is full is lost, and counted.
type logQueue struct {
	to slog.Handler
	*logLines
}

// logLines is the queue, which handlers with attributes of their own share.
type logLines struct {
	lines chan logLine
	lost  atomic.Int64
	done  chan struct{}

	mu     sync.RWMutex // guards closed; held to read while a line is put in
	closed bool
}

type logLine struct {
	to slog.Handler
	r  slog.Record
}

func newLogQueue(to slog.Handler) *logQueue {
	q := &logQueue{to: to, logLines: &logLines{lines: make(chan logLine, maxLines), done: make(chan struct{})}}
	go q.write()
	return q
}

// Enabled is slog.Handler's.
func (q *logQueue) Enabled(ctx context.Context, l slog.Level) bool { return q.to.Enabled(ctx, l) }

// WithAttrs is slog.Handler's.
func (q *logQueue) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logQueue{to: q.to.WithAttrs(attrs), logLines: q.logLines}
}

// WithGroup is slog.Handler's.
func (q *logQueue) WithGroup(name string) slog.Handler {
	return &logQueue{to: q.to.WithGroup(name), logLines: q.logLines}
}

// Handle is slog.Handler's; it never waits and never fails.
func (q *logQueue) Handle(_ context.Context, r slog.Record) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return nil
	}
	select {
	case q.lines <- logLine{q.to, r.Clone()}:
	default:
		q.lost.Add(1)
	}
	return nil
}

func (q *logQueue) write() {
	defer close(q.done)
	for l := range q.lines {
		_ = l.to.Handle(context.Background(), l.r) // nowhere left to say it
		if n := q.lost.Swap(0); n > 0 {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "the log's disk is too slow: lines were lost", 0)
			r.Add("lines", n)
			_ = q.to.Handle(context.Background(), r)
		}
	}
}

// finish writes what was logged, within that time, and takes no more.
func (q *logQueue) finish(within time.Duration) {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.lines)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-time.After(within):
	}
}
