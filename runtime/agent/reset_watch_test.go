package agent

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// fakeHosts is a monitor of which a test says what is left.
type fakeHosts struct {
	grace atomic.Int64
	ended chan struct{}
	left  func() string
}

func (f *fakeHosts) Grace() time.Duration   { return time.Duration(f.grace.Load()) }
func (f *fakeHosts) Ended() <-chan struct{} { return f.ended }
func (f *fakeHosts) Remains() string        { return f.left() }

// trigger is a file that remembers when it was written to.
type trigger struct {
	mu   sync.Mutex
	got  string
	when spec.Instant
}

func (w *trigger) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got, w.when = w.got+string(b), boottime.Now()
	return len(b), nil
}

// When a node is reset, and when it is not: never before its lease, stop_within and
// kill are over, never when nothing is left.
func TestResetter(t *testing.T) {
	const grace = 40 * time.Millisecond
	never := func() string { return "process 7" }
	for name, tt := range map[string]struct {
		lease   time.Duration        // from the test's start
		renewed time.Duration        // to, by the first look; 0: not
		grace   time.Duration        // of what runs at first
		starts  bool                 // something, later
		ended   bool                 // the monitor, at first
		left    func(n int64) string // by the n-th look
		resets  bool
	}{
		"hangs":                       {lease: 60 * time.Millisecond, grace: grace, ended: true, left: func(int64) string { return never() }, resets: true},
		"gone after some looks":       {lease: time.Hour, grace: grace, ended: true, left: func(n int64) string { return strings.Repeat("x", int(max(0, 5-n))) }},
		"nothing ran":                 {ended: true, left: func(int64) string { return never() }},
		"the monitor hangs":           {lease: 60 * time.Millisecond, grace: grace, left: func(int64) string { return "the monitor itself" }, resets: true},
		"started later, and hangs":    {lease: 60 * time.Millisecond, starts: true, left: func(int64) string { return never() }, resets: true},
		"/proc hangs":                 {grace: grace, ended: true, left: func(int64) string { select {} }, resets: true},
		"renewed, and gone meanwhile": {grace: grace, renewed: time.Hour, ended: true, left: func(n int64) string { return strings.Repeat("x", int(max(0, 3-n))) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := boottime.Now()
			var lease, looks atomic.Int64
			lease.Store(int64(began.Add(tt.lease)))
			f := &fakeHosts{ended: make(chan struct{})}
			f.grace.Store(int64(tt.grace))
			f.left = func() string {
				if tt.renewed != 0 {
					lease.Store(int64(began.Add(tt.renewed)))
				}
				return tt.left(looks.Add(1))
			}
			if tt.ended {
				close(f.ended)
			}
			w := &trigger{}
			var told []string
			r := &resetter{trigger: w, lease: func() spec.Instant { return spec.Instant(lease.Load()) }, tell: func(s string) { told = append(told, s) }}
			poke := make(chan struct{}, 1)
			if tt.starts {
				f.grace.Store(int64(grace))
				poke <- struct{}{}
			}
			if err := r.watch(f, poke); err != nil {
				t.Fatal(err)
			}
			if (w.got == "b") != tt.resets || w.got != "" && w.got != "b" {
				t.Fatalf("wrote %q, told %q", w.got, told)
			}
			if tt.resets && (w.when.Before(began.Add(tt.lease+grace)) || len(told) != 2) {
				t.Errorf("reset %s after the start, told %q", w.when.Sub(began), told)
			}
			if !tt.resets && len(told) > 0 {
				t.Errorf("told %q", told)
			}
		})
	}
}

// lateHosts says when it is asked for its grace.
type lateHosts struct {
	fakeHosts
	asked func()
}

func (l *lateHosts) Grace() time.Duration {
	l.asked()
	return l.fakeHosts.Grace()
}

// A host that stood still, agent and all, until long after the lease: the kernel
// kills what ran only now, and that is no reason for a reset.
func TestResetterStoodStill(t *testing.T) {
	t.Parallel()
	began := boottime.Now()
	var still atomic.Bool
	var looks atomic.Int64
	asked := 0
	l := &lateHosts{fakeHosts: fakeHosts{ended: make(chan struct{})}}
	close(l.ended)
	l.grace.Store(int64(10 * time.Second))
	l.asked = func() {
		if asked++; asked == 2 {
			time.Sleep(5 * lookAgainAfter) // from here to its next look
			still.Store(true)
		}
	}
	l.left = func() string {
		if still.Load() && looks.Add(1) > 3 {
			return ""
		}
		return "process 7"
	}
	w := &trigger{}
	r := &resetter{trigger: w, tell: func(text string) { t.Error(text) }, lease: func() spec.Instant {
		if still.Load() {
			return began.Add(-time.Hour)
		}
		return began.Add(time.Hour)
	}}
	if err := r.watch(l, nil); err != nil || w.got != "" {
		t.Fatalf("wrote %q, %v", w.got, err)
	}
}

// The group with the least grace is gone by the end of the look that found it:
// what is left is another's, which has longer.
func TestResetterOfTwoGroups(t *testing.T) {
	t.Parallel()
	began := boottime.Now()
	var looks atomic.Int64
	f := &fakeHosts{ended: make(chan struct{})}
	close(f.ended)
	f.grace.Store(int64(40 * time.Millisecond))
	f.left = func() string {
		if looks.Add(1) > 1 {
			return ""
		}
		f.grace.Store(int64(2 * time.Hour))
		return "process 8"
	}
	w := &trigger{}
	r := &resetter{trigger: w, tell: func(text string) { t.Error(text) }, lease: func() spec.Instant { return began.Add(-time.Hour) }}
	if err := r.watch(f, nil); err != nil || w.got != "" {
		t.Fatalf("wrote %q, %v", w.got, err)
	}
}
