package core

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// How long a peer that answers irregularly may be silent is the settings' from the
// first moment, and after each change of them.
func TestSuspicionFollowsTheSettings(t *testing.T) {
	now := spec.Instant(10 * time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	state := confdb.NewState()
	for i, timings := range []spec.Timings{
		{}, {Suspicion: spec.Duration(time.Second), Lease: spec.Duration(4 * time.Second)}, {Profile: spec.ProfileMSCS}, {Interval: spec.Duration(60 * time.Millisecond)}, {},
	} {
		if i > 0 {
			state.Cluster = spec.Cluster{ID: "c", Heartbeat: timings}
			state.TimingsRevision++
			m.Step(now, StateChanged{state})
		}
		p := &peer{jitter: jitter{gap: time.Hour, at: now}}
		if got, want := m.suspicion(p), m.Timings().SuspicionLimit(); got != want {
			t.Errorf("with %+v it may be silent for %v, not %v", timings, got, want)
		}
	}
}
