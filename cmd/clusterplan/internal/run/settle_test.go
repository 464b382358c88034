package run

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// An apply waits for groups that come back, a little; not for what failed or
// is offline, and not without an answer.
func TestUnsettled(t *testing.T) {
	group := func(name, state string) client.StatusGroup { return client.StatusGroup{Name: name, State: state} }
	for _, c := range []struct {
		name   string
		status func(since time.Duration) (client.Status, error)
		left   int
		took   time.Duration
	}{
		{"it comes back", func(d time.Duration) (client.Status, error) {
			g := group("web", spec.StatePending)
			if d >= 3*time.Second {
				g.State = spec.StateOnline
			}
			return client.Status{Groups: []client.StatusGroup{g}}, nil
		}, 0, 3 * time.Second},
		{"it doesn't", func(time.Duration) (client.Status, error) {
			return client.Status{Groups: []client.StatusGroup{group("web", spec.StatePending), group("db", spec.StateOnline)}}, nil
		}, 1, settleWithin + settlePoll},
		{"failed and offline", func(time.Duration) (client.Status, error) {
			return client.Status{Groups: []client.StatusGroup{group("web", spec.StateFailed), group("db", spec.StateOffline)}}, nil
		}, 0, 0},
		{"no answer", func(time.Duration) (client.Status, error) { return client.Status{}, errors.New("nobody") }, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			left := unsettled(t.Context(), nil, func(context.Context) (client.Status, error) { return c.status(time.Since(start)) })
			if took := time.Since(start); len(left) != c.left || took != c.took {
				t.Errorf("%s: %v after %v", c.name, left, took)
			}
		})
	}
}
