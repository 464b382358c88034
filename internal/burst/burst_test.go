package burst

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, tc := range []struct {
		live, floor uint64
		want        int
	}{
		{0, 64 << 20, 1600},
		{16 << 20, 64 << 20, 300},
		{31 << 20, 62 << 20, 100},
		{50 << 20, 64 << 20, 50},
		{100 << 20, 64 << 20, 50},
		{500 << 20, 64 << 20, 100},
	} {
		if got := percent(tc.live, tc.floor); got != tc.want {
			t.Errorf("percent(%d, %d) = %d, want %d", tc.live, tc.floor, got, tc.want)
		}
	}
}

var held []byte

// After each collection the next goal follows what is alive.
func TestBegin(t *testing.T) {
	t.Setenv("GOGC", "")
	now := func() int { p := debug.SetGCPercent(100); debug.SetGCPercent(p); return p }
	defer debug.SetGCPercent(now())
	Begin(32 << 20)
	if p := now(); p != 533 {
		t.Fatalf("%d percent at first, want 533", p)
	}
	held = make([]byte, 64<<20) // twice the floor is alive: nothing is special any more
	defer func() { held = nil }()
	for end := time.Now().Add(20 * time.Second); now() != 100; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(end) {
			t.Fatalf("%d percent with 64 MiB alive, want 100", now())
		}
	}
	held = nil
	for end := time.Now().Add(20 * time.Second); now() <= 100; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(end) {
			t.Fatal("100 percent with next to nothing alive, want more")
		}
	}
}
