package apply_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/providers"
)

// crowd is a provider whose every call takes a second, and that counts how many are
// under way at once.
type crowd struct {
	providers.Provider
	mu        sync.Mutex
	now, most int
}

func (c *crowd) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	c.count(1)
	defer c.count(-1)
	time.Sleep(time.Second)
	return c.Provider.Apply(ctx, req)
}

func (c *crowd) count(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += n
	c.most = max(c.most, c.now)
}

// As much is done at once as is allowed, ten without a word, and no more.
func TestParallelism(t *testing.T) {
	src := threeNodes
	for i := range 25 {
		src += fmt.Sprintf("group \"g%d\" {\n  resource \"generic_application\" \"app\" { command = [\"true\"] }\n}\n", i)
	}
	for _, c := range []struct{ given, most int }{{0, 10}, {1, 1}, {3, 3}, {100, 25}} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			wrapped := &crowd{}
			l.conf = func(cfg *apply.Config) {
				cfg.Parallelism = c.given
				of := func(name string) providers.Provider {
					p, err := l.world.Registry().Provider(name)
					if err != nil {
						t.Fatal(err)
					}
					return p
				}
				wrapped.Provider = of("confdb")
				cfg.Providers = providers.NewRegistry(map[string]providers.Provider{"local": of("local"), "confdb": wrapped})
			}
			l.must(l.load(src), "")
			l.settled(l.load(src))
			if wrapped.most != c.most {
				t.Errorf("--parallelism %d: %d at once, not %d", c.given, wrapped.most, c.most)
			}
		})
	}
}
