package monitor

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// A call that hangs for 300 s, or past a longer time-out of its own, is told as
// a deadlock; one that came back is not.
func TestDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &monitor{reports: make(chan report)}
		in := &instance{ref: ResourceRef{Group: "g", Resource: "db"}, group: &group{name: "sql"}}
		for _, c := range []struct{ own, want time.Duration }{{10 * time.Second, 300 * time.Second}, {10 * time.Minute, 10*time.Minute + 30*time.Second}} {
			returned := m.call(in, "is_alive", c.own)
			began := time.Now()
			r := <-m.reports
			if took := time.Since(began); took != c.want {
				t.Errorf("told after %v, not %v", took, c.want)
			}
			if err := deadlocked(r).Error(); !strings.Contains(err, "resource db of group sql: is_alive has not come back") {
				t.Error(err)
			}
			returned()
			m.call(in, "is_alive", c.own)()
		}
		// Late, beside a loop that no longer reads: nothing is left waiting.
		returned := m.call(in, "start", 0)
		time.Sleep(400 * time.Second)
		returned()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		select {
		case r := <-m.reports:
			t.Errorf("told though it came back: %+v", r)
		case <-ctx.Done():
		}
	})
}

// A program that ends the moment after its start was never online.
func TestEndsAtOnce(t *testing.T) {
	t.Parallel()
	r := ready(t)
	r.send(app("exit 3"))
	online := false
	r.await("failed", func(w Word) bool {
		online = online || w.Changed != nil && w.Changed.State == spec.StateOnline
		return w.Changed != nil && w.Changed.State == spec.StateFailed && strings.Contains(w.Changed.Reason, "3")
	})
	if online {
		t.Error("it counted as online")
	}
}
