package libvirtconn

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
)

// between stands between a client and libvirtd, and can fall silent or hang up.
type between struct {
	path   string
	silent atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newBetween(t *testing.T, dir string) *between {
	t.Helper()
	b := &between{path: filepath.Join(dir, "between")}
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", systemSocket)
			if err != nil {
				client.Close()
				continue
			}
			b.mu.Lock()
			b.conns = append(b.conns, client, server)
			b.mu.Unlock()
			go func() { _, _ = io.Copy(server, client); server.Close() }() // until either ends
			go func() {
				defer client.Close()
				for buf := make([]byte, 64<<10); ; {
					n, err := server.Read(buf)
					if err != nil {
						return
					}
					if b.silent.Load() {
						continue
					}
					if _, err := client.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return b
}

func (b *between) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}

func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: blocked", what)
	}
}

// TestConn: calls end with their context and with a silent libvirtd, are made
// again where the connection is lost, and events that arrive while their listener
// leaves block nobody.
func TestConn(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		b := newBetween(t, lab.Dir)
		c, err := New(Config{URI: "test:///default?socket=" + b.path, CallTimeout: 500 * time.Millisecond, ConnectTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx := t.Context()
		ask := func(l *libvirt.Libvirt) error {
			_, err := l.ConnectGetHostname()
			return err
		}
		if err := c.Do(ctx, "ask", ask); err != nil {
			t.Fatal(err)
		}

		// Hung up on: the call is made again, over a new connection.
		calls := 0
		if err := c.Do(ctx, "ask twice", func(l *libvirt.Libvirt) error {
			if calls++; calls == 1 {
				b.hangUp()
			}
			return ask(l)
		}); err != nil || calls != 2 {
			t.Fatalf("after %d calls: %v", calls, err)
		}

		// Silent: the call ends, by its context or the time-out; then all is well.
		b.silent.Store(true)
		within(t, "a silent libvirtd", func() { err = c.Do(ctx, "ask", ask) })
		if err == nil || !strings.Contains(err.Error(), "ask: libvirtd at "+b.path+" has been silent for 500ms") {
			t.Fatalf("a silent libvirtd gives %v", err)
		}
		b.silent.Store(false)
		if err := c.Do(ctx, "ask", ask); err != nil {
			t.Fatal(err)
		}
		ending, cancel := context.WithCancel(ctx)
		if err := c.Do(ending, "ask", func(l *libvirt.Libvirt) error {
			b.silent.Store(true)
			cancel()
			return ask(l)
		}); !errors.Is(err, context.Canceled) {
			t.Fatalf("a call whose context has ended gives %v", err)
		}
		b.silent.Store(false)

		// Events arrive without end while listeners come and go.
		if err := c.Do(ctx, "connect", ask); err != nil {
			t.Fatal(err)
		}
		noise, quiet := context.WithCancel(ctx)
		loud := make(chan struct{})
		go func() {
			defer close(loud)
			for noise.Err() == nil {
				_ = c.Do(noise, "make events", func(l *libvirt.Libvirt) error { // ends with its context
					dom, err := l.DomainLookupByName("test")
					if err != nil {
						return err
					}
					return errors.Join(l.DomainSuspend(dom), l.DomainResume(dom))
				})
			}
		}()
		for range 30 {
			within(t, "events while their listener leaves", func() {
				events, stop, err := c.Watch(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if ev, ok := <-events; !ok || ev.Name != "test" {
					t.Errorf("the event is %+v, %v", ev, ok)
				}
				stop()
				for range events {
				}
			})
		}
		quiet()
		<-loud
		if err := c.Do(ctx, "ask", ask); err != nil {
			t.Fatal(err)
		}
	})
}
