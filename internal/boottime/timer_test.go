package boottime

import (
	"context"
	"testing"
	"time"
)

func TestTimer(t *testing.T) {
	timer, err := NewTimer()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- timer.Run(ctx) }()
	came := func() {
		t.Helper()
		select {
		case <-timer.C:
			timer.Fired()
		case <-time.After(30 * time.Second):
			t.Fatal("it never went off")
		}
	}
	at := Now().Add(20 * time.Millisecond)
	timer.Set(at)
	timer.Set(at)
	came()
	if Now().Before(at) {
		t.Fatal("it went off too early")
	}
	timer.Set(at) // the same moment again, which has passed
	came()
	timer.Set(Now().Add(time.Hour))
	timer.Set(0)
	at = Now().Add(20 * time.Millisecond)
	timer.Set(at) // the earlier ones don't count any more
	came()
	if Now().Before(at) {
		t.Fatal("it went off too early")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	timer.file.Close() // Run leaves that to another goroutine
	timer.Set(Now().Add(time.Hour))
}
