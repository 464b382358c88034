package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// checked is a host whose checks do as they are told, and are noted.
type checked struct {
	resource.Host // none of its other calls comes
	began         time.Time
	mu            sync.Mutex
	asked         []string // "5s looks"
	fails         map[string]bool
}

func (c *checked) Run(_ context.Context, p resource.Program) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := p.Args[1]
	c.asked = append(c.asked, fmt.Sprint(time.Since(c.began), " ", what))
	if c.fails[what] {
		return errors.New("no")
	}
	return nil
}

// fail has a check fail from now on, or no longer.
func (c *checked) fail(what string, fails bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fails[what] = fails
}

// seen is what was asked since it was called last.
func (c *checked) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

// With nothing said: the cheap check every 5 s, the thorough one every minute and
// whenever the cheap one is in doubt; only the thorough one decides.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := func(c *checked) *resource.Resource {
			res, err := resource.New(resource.Env{Dir: "/"}, c, spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "127.0.0.1"},
				LooksAlive: spec.Poll{Command: []string{"/bin/sh", "looks"}}, IsAlive: spec.Poll{Command: []string{"/bin/sh", "is"}}})
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		c := &checked{began: time.Now(), fails: map[string]bool{}}
		ended := make(chan error, 1)
		go func() { ended <- watch(t.Context(), of(c), func(string) func() { return func() {} }) }()
		until := func(at time.Duration) {
			time.Sleep(at - time.Since(c.began) + time.Millisecond)
			synctest.Wait()
		}
		see := func(want ...string) {
			t.Helper()
			if asked := c.seen(); !slices.Equal(asked, want) {
				t.Errorf("asked %q, want %q", asked, want)
			}
		}
		until(70 * time.Second)
		see("5s looks", "10s looks", "15s looks", "20s looks", "25s looks", "30s looks", "35s looks", "40s looks", "45s looks", "50s looks", "55s looks",
			"1m0s is", "1m5s looks", "1m10s looks")
		c.fail("looks", true)
		until(80 * time.Second)
		see("1m15s looks", "1m15s is", "1m20s looks", "1m20s is")
		c.fail("looks", false)
		until(85 * time.Second)
		c.fail("is", true)
		until(135 * time.Second)
		if asked := c.seen(); len(asked) != 11 || slices.ContainsFunc(asked, func(a string) bool { return !strings.HasSuffix(a, "looks") }) {
			t.Errorf("asked %q, and nothing is in doubt", asked)
		}
		until(140 * time.Second) // a minute after it was asked last
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "check failed") {
				t.Errorf("it ended with %v", err)
			}
		default:
			t.Fatal("the thorough check failed, and nothing came of it")
		}
		c = &checked{began: time.Now(), fails: map[string]bool{"looks": true, "is": true}}
		err := watch(t.Context(), of(c), func(string) func() { return func() {} })
		if see("5s looks", "5s is"); err == nil {
			t.Error("in doubt and found dead, and nothing came of it")
		}
	})
}
