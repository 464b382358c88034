package apply

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/providers"
)

// slow is a cluster that takes its time to tell how it is.
type slow struct {
	providers.Provider
	takes time.Duration
	looks int
}

// Forget has nothing to let go of.
func (*slow) Forget() {}

func (s *slow) Live(context.Context) (*providers.Live, error) {
	s.looks++
	time.Sleep(s.takes)
	return &providers.Live{}, nil
}

// Groups come up one after the other, and each wants to see the cluster as it is
// after that. They share looks, so that these take a part of the time, however many
// groups there are; and nobody waits long, nor is shown what was before.
func TestGlance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups, apart, takes = 1000, time.Millisecond, 10 * time.Millisecond
		s := &slow{takes: takes}
		r := &runner{cfg: Config{Providers: providers.NewRegistry(map[string]providers.Provider{"p": s}), Poll: 200 * time.Millisecond}, glance: glance{turn: make(chan struct{}, 1)}}
		var wg sync.WaitGroup
		for range groups {
			time.Sleep(apart)
			wg.Go(func() {
				since := time.Now()
				r.look(t.Context(), since)
				if took := time.Since(since); took > 7*takes { // one under way, the pause, its own
					t.Errorf("a look took %v", took)
				}
				r.glance.turn <- struct{}{}
				defer func() { <-r.glance.turn }()
				if r.glance.at.Before(since) {
					t.Error("it was shown what was before")
				}
			})
		}
		wg.Wait()
		if most := int(groups*apart/(5*takes)) + 2; s.looks > most {
			t.Errorf("%d looks, at most %d wanted", s.looks, most)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r.look(ctx, time.Now()) != nil {
			t.Error("it looked for somebody who is gone")
		}
	})
}
