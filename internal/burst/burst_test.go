package burst

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, tc := range []struct {
		live uint64
		pace pace
		want int
	}{
		{0, pace{floor: 64 << 20, growth: 50}, 1600},
		{16 << 20, pace{floor: 64 << 20, growth: 50}, 300},
		{31 << 20, pace{floor: 62 << 20, growth: 50}, 100},
		{50 << 20, pace{floor: 64 << 20, growth: 50}, 50},
		{100 << 20, pace{floor: 64 << 20, growth: 50}, 50},
		{500 << 20, pace{floor: 64 << 20, growth: 50}, 100},
		{50 << 20, pace{floor: short, growth: 10}, 10},
		{64 << 20, pace{floor: short, growth: 2}, 2},
		{65 << 20, pace{floor: short, growth: 2}, 10},
		{31 << 20, pace{floor: short, growth: 2}, 3},
		{191 << 20, pace{floor: short, growth: 10}, 10},
		{192 << 20, pace{floor: short, growth: 10}, 100},
	} {
		if got := tc.pace.percent(tc.live); got != tc.want {
			t.Errorf("percent(%d) of %+v = %d, want %d", tc.live, tc.pace, got, tc.want)
		}
	}
}

var held []byte

func now() int { p := debug.SetGCPercent(100); debug.SetGCPercent(p); return p }

// A plan of a short definition is collected earlier than one of a long one, and one
// with many objects of each block more often; who only began to work is not slowed.
func TestPlanning(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(now())
	defer current.Store(&pace{floor: Floor, growth: 50})
	for _, tc := range []struct {
		name            string
		planning        bool
		text            int
		objects, blocks int
		want            pace
	}{
		{"another command", false, 0, 10000, 5, pace{Floor, 50, false}},
		{"a block each", true, 1 << 20, 10000, 10000, pace{Floor, 50, true}},
		{"short, a few of each block", true, 10000, 100, 10, pace{short, 50, true}},
		{"short, all of one block", true, 10000, 10000, 9, pace{short, 2, true}},
		{"very short, a few of each block", true, 1000, 100, 10, pace{shortest, 10, true}},
		{"very short, all of one block", true, 1000, 10000, 9, pace{shortest, 2, true}},
	} {
		Begin(Floor)
		if tc.planning {
			Planning(tc.text)
		}
		Evaluated(tc.objects, tc.blocks)
		if got := *current.Load(); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

// What a server's answers took is given back before the plan is worked out of them,
// where most objects are alike; only then, for it costs two collections.
func TestLooked(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(now())
	defer current.Store(&pace{floor: Floor, growth: 50})
	collected := func() uint32 { var m runtime.MemStats; runtime.ReadMemStats(&m); return m.NumForcedGC }
	for _, tc := range []struct {
		pace pace
		want uint32
	}{
		{pace{Floor, 50, false}, 0},
		{pace{Floor, 50, true}, 0},
		{pace{shortest, 10, true}, 0},
		{pace{short, 2, true}, 1},
	} {
		current.Store(&tc.pace)
		before := collected()
		Looked()
		if got := collected() - before; got != tc.want {
			t.Errorf("%+v: collected %d times, want %d", tc.pace, got, tc.want)
		}
	}
}

// After each collection the next goal follows what is alive.
func TestBegin(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(now())
	Begin(32 << 20)
	defer current.Store(&pace{floor: Floor, growth: 50})
	if p := now(); p != 533 {
		t.Fatalf("%d percent at first, want 533", p)
	}
	held = make([]byte, 192<<20) // twice Floor is alive: nothing is special any more
	defer func() { held = nil }()
	for end := time.Now().Add(20 * time.Second); now() != 100; time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Now().After(end) {
			t.Fatalf("%d percent with 192 MiB alive, want 100", now())
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
