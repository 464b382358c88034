// Package libvirtconn is the connection to a hypervisor's libvirtd, by any of
// libvirt's URIs: a unix socket of this machine, SSH, TLS, TCP.
//
// Start reading at Conn. It holds no connection until something is asked of it,
// then as many as calls run at once. What it promises:
//
//   - A call ends with its context, or when libvirtd is silent for too long: the
//     library's own calls know neither, so the connection is given up, and with
//     it the call. Nobody else's call is on it.
//   - A libvirtd that is restarted in the middle is waited for, and the call is
//     made again: what is given to Do must be able to run twice.
//   - Events come over a connection of their own, which is closed and never
//     unsubscribed: an event that arrives in the middle of that would block the
//     library for ever.
//
// It knows nothing of clusters and providers, and makes nothing by itself.
package libvirtconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

// ErrUnreachable is what errors.Is finds when libvirtd couldn't be talked to.
var ErrUnreachable = errors.New("libvirtd unreachable")

// Config says which libvirtd, and how patient to be. Only URI is needed.
type Config struct {
	URI string // as virsh takes it: qemu:///system, qemu+ssh://root@host/system, ...
	// CallTimeout bounds one call (1 min), ConnectTimeout making a connection
	// (15 s), RetryFor the wait for a libvirtd that was there and is gone (20 s).
	CallTimeout    time.Duration
	ConnectTimeout time.Duration
	RetryFor       time.Duration
	Log            *slog.Logger // nil: none
	// What logs in, as texts, in place of what the URI and the files of this machine
	// say: of SSH, PrivateKey and HostKey (or its fingerprint); of TLS, all but
	// HostKey, in PEM.
	PrivateKey, HostKey, Certificate, CA string
}

// Conn is a libvirtd. Its methods may be called by many at once.
type Conn struct {
	cfg Config
	at  target

	mu     sync.Mutex
	idle   []*line
	seen   bool // it has answered once
	closed bool
}

// New reads the URI; it connects to nothing.
func New(cfg Config) (*Conn, error) {
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, time.Minute)
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, 15*time.Second)
	cfg.RetryFor = cmp.Or(cfg.RetryFor, 20*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	at, err := parse(cfg)
	if err != nil {
		return nil, err
	}
	return &Conn{cfg: cfg, at: at}, nil
}

// URI is what the connection was made of.
func (c *Conn) URI() string { return c.cfg.URI }

// Local tells whether the hypervisor is this machine, so that its files are.
func (c *Conn) Local() bool { return c.at.network == "unix" && c.at.ssh == nil }

// DialFrom connects to an address as the hypervisor sees it, where there is a
// way: from this machine where it is the hypervisor, through SSH. Else from here.
func (c *Conn) DialFrom(ctx context.Context, network, address string) (net.Conn, error) {
	if c.at.ssh != nil {
		return c.at.ssh.Dial(ctx, network, address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// line is one connection; one call at a time is on it.
type line struct {
	l    *libvirt.Libvirt
	conn *watched
}

// watched tells when its connection is over.
type watched struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.end()
	}
	return n, err
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if err != nil {
		w.end()
	}
	return n, err
}

func (w *watched) end() { w.once.Do(func() { close(w.over) }) }

func (w *watched) Close() error {
	w.end()
	return w.Conn.Close()
}

func (w *watched) alive() bool {
	select {
	case <-w.over:
		return false
	default:
		return true
	}
}

// Close closes the connections that nothing runs on; those of running calls
// are closed when these end.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, ln := range c.idle {
		ln.conn.Close()
	}
	c.idle = nil
	return c.at.close()
}

// Do has f make calls over one connection. It is called again where the
// connection was lost under it. What says in errors what was asked.
func (c *Conn) Do(ctx context.Context, what string, f func(*libvirt.Libvirt) error) error {
	return c.DoLong(ctx, what, nil, f)
}

// DoLong is Do for what takes long and shows that it goes on: the time-out is
// that of a moved that stays the same.
func (c *Conn) DoLong(ctx context.Context, what string, moved func() int64, f func(*libvirt.Libvirt) error) error {
	var deadline time.Time
	for {
		begun := time.Now()
		err := c.once(ctx, moved, f)
		c.cfg.Log.Debug("libvirtd was asked", "what", what, "took", time.Since(begun), "err", err)
		lost := errors.Is(err, ErrUnreachable)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case !lost || !c.answered():
			return fmt.Errorf("%s: %w", what, err)
		case deadline.IsZero():
			deadline = time.Now().Add(c.cfg.RetryFor)
			c.cfg.Log.Info("libvirtd is gone; waiting for it", "uri", c.cfg.URI, "what", what, "err", err)
		case time.Now().After(deadline):
			return fmt.Errorf("%s: %w; it was there before: was it restarted, and did it come back?", what, err)
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (c *Conn) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *Conn) once(ctx context.Context, moved func() int64, f func(*libvirt.Libvirt) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ln, err := c.take(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f(ln.l) }()
	err, finished := c.wait(ctx, moved, done)
	if finished && ln.conn.alive() && !errors.Is(err, libvirt.ErrInterrupted) {
		c.give(ln)
		return err
	}
	ln.conn.Close()
	if finished && err != nil && libvirtError(err) == nil {
		return fmt.Errorf("%w: the connection to %s was lost: %w", ErrUnreachable, c.at, err)
	}
	return err
}

// wait waits for a call; false: it was given up.
func (c *Conn) wait(ctx context.Context, moved func() int64, done <-chan error) (error, bool) {
	var was int64
	for {
		timer := time.NewTimer(c.cfg.CallTimeout)
		select {
		case err := <-done:
			timer.Stop()
			return err, true
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx), false
		case <-timer.C:
		}
		if moved != nil {
			if now := moved(); now != was {
				was = now
				continue
			}
		}
		return fmt.Errorf("libvirtd at %s has been silent for %v; look at its log, and restart it if it hangs", c.at, c.cfg.CallTimeout), false
	}
}

func (c *Conn) take(ctx context.Context) (*line, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errors.New("the connection to libvirtd is closed")
	}
	for len(c.idle) > 0 {
		ln := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if ln.conn.alive() {
			c.mu.Unlock()
			return ln, nil
		}
		ln.conn.Close()
	}
	c.mu.Unlock()
	ln, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.seen = true
	c.mu.Unlock()
	return ln, nil
}

func (c *Conn) give(ln *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		ln.conn.Close()
		return
	}
	c.idle = append(c.idle, ln)
}

// connect makes a connection and opens the driver on it.
func (c *Conn) connect(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	raw, err := c.at.dial(ctx)
	if err != nil {
		return nil, c.at.refused(err)
	}
	conn := &watched{Conn: raw, over: make(chan struct{})}
	l := libvirt.NewWithDialer(dialers.NewAlreadyConnected(conn))
	done := make(chan error, 1)
	go func() { done <- l.ConnectToURI(libvirt.ConnectURI(c.at.driver)) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = fmt.Errorf("it accepts connections but does not answer within %v", c.cfg.ConnectTimeout)
	}
	if err != nil {
		conn.Close()
		return nil, c.at.refused(err)
	}
	return &line{l: l, conn: conn}, nil
}
