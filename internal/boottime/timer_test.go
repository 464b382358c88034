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

// Nothing is read of the timer, so it counts on being told of each time that it goes
// off just once: of one before Run as well, and of none again.
func TestTimerTellsOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	run := func(timer *Timer) { _ = timer.Run(ctx) }
	timers := make([]*Timer, 2)
	for i := range timers {
		var err error
		if timers[i], err = NewTimer(); err != nil {
			t.Fatal(err)
		}
	}
	early, other := timers[0], timers[1]
	go run(other)
	// The poller hears of them in order: by the time that it has told of the other, it
	// has nothing more to tell of the early one.
	pass := func() {
		t.Helper()
		other.Set(Now().Add(20 * time.Millisecond))
		select {
		case <-other.C:
			other.Fired()
		case <-time.After(30 * time.Second):
			t.Fatal("the other timer never went off")
		}
	}
	early.Set(Now())
	pass()
	go run(early)
	select {
	case <-early.C:
	case <-time.After(30 * time.Second):
		t.Fatal("what went off before Run was never told")
	}
	pass()
	select {
	case <-early.C:
		t.Fatal("it was told twice")
	default:
	}
}
