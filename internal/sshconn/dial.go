package sshconn

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	firstPause = 100 * time.Millisecond // before a host is dialled again; doubles
	lastPause  = 2 * time.Second
	missed     = 3 // times that an answer to a keepalive was waited for in vain
)

// connect gives the live connection, dialling when there is none. Who asks while
// another dials waits for that one.
func (c *Conn) connect(ctx context.Context) (*live, error) {
	select {
	case c.dialling <- struct{}{}:
		defer func() { <-c.dialling }()
	case <-ctx.Done():
		return nil, c.fail(nil, context.Cause(ctx), "", "connect")
	}
	c.mu.Lock()
	l, closed := c.live, c.closed
	c.mu.Unlock()
	if closed {
		return nil, c.fail(nil, nil, "", "the connection has been closed")
	}
	if l != nil && l.alive() {
		return l, nil
	}
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		l, err := c.dial(ctx)
		if err == nil {
			c.mu.Lock()
			closed = c.closed
			c.live = l
			c.mu.Unlock()
			if closed { // while it was dialled
				l.client.Close()
				<-l.dead
				return nil, c.fail(nil, nil, "", "the connection has been closed")
			}
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, c.fail(nil, context.Cause(ctx), "", "connect")
		}
		if !errors.Is(err, ErrUnreachable) || final(err) || time.Since(began)+pause > c.t.retryFor {
			return nil, err
		}
		c.pool.o.Log.Debug("the host is tried again", "host", c.String(), "after", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, c.fail(nil, context.Cause(ctx), "", "connect")
		}
	}
}

// final tells errors that trying again won't mend soon.
func final(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// dial makes one attempt, which for a fingerprint asks for each kind of key.
func (c *Conn) dial(ctx context.Context) (*live, error) {
	check, err := c.hostKeyCheck()
	if err != nil {
		return nil, err
	}
	var wrongKey error
	for _, algorithms := range check.algorithms() {
		l, err := c.handshake(ctx, check, algorithms)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, ErrHostKey) {
			return nil, err
		}
		if wrongKey == nil || check.err != nil {
			wrongKey = err
		}
	}
	return nil, wrongKey
}

// clock bounds an attempt; it stands still while a person is asked.
type clock struct {
	mu    sync.Mutex
	left  time.Duration
	since time.Time
	timer *time.Timer
	fired bool
}

func startClock(d time.Duration, end func()) *clock {
	c := &clock{left: d, since: time.Now()}
	c.timer = time.AfterFunc(d, func() {
		c.mu.Lock()
		c.fired = true
		c.mu.Unlock()
		end()
	})
	return c
}

func (c *clock) pause() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer.Stop() {
		c.left -= time.Since(c.since)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.since = time.Now()
		if !c.fired {
			c.timer.Reset(max(c.left, time.Second))
		}
	}
}

func (c *clock) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	return c.fired
}

func (c *Conn) handshake(ctx context.Context, check *hostKeyCheck, algorithms []string) (*live, error) {
	raw, err := c.reach(ctx)
	if err != nil {
		return nil, err
	}
	end := startClock(c.t.connectTimeout, func() { raw.Close() })
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	login, err := c.login(ctx, end.pause)
	if err != nil {
		raw.Close()
		end.over()
		stop()
		return nil, err
	}
	check.seen, check.err = nil, nil
	l := &live{dead: make(chan struct{})}
	conn, channels, requests, err := ssh.NewClientConn(&listening{Conn: raw, heard: &l.heard}, c.t.addr(), &ssh.ClientConfig{
		User:              c.t.user,
		Auth:              []ssh.AuthMethod{login.method()},
		HostKeyCallback:   check.check,
		HostKeyAlgorithms: algorithms,
		ClientVersion:     "SSH-2.0-clusterplan",
	})
	late := end.over()
	stop()
	if err != nil {
		raw.Close()
		return nil, c.explain(ctx, check, login, algorithms, late, err)
	}
	l.client = ssh.NewClient(conn, channels, requests)
	c.mu.Lock()
	c.root = rootState{}
	c.mu.Unlock()
	go c.watch(l)
	return l, nil
}

// reach makes the byte stream: over TCP, or through the jump host.
func (c *Conn) reach(ctx context.Context) (net.Conn, error) {
	if c.via == nil {
		d := net.Dialer{Timeout: c.t.connectTimeout, KeepAlive: -1}
		raw, err := d.DialContext(ctx, "tcp", c.t.addr())
		if err != nil {
			return nil, c.fail(ErrUnreachable, plain(err), "Check that the host is up, that sshd listens there, and that no firewall is between", "can't connect")
		}
		return raw, nil
	}
	err := c.via.Connect(ctx) // has its own bounds, and may ask a person
	var raw net.Conn
	if err == nil {
		timed, cancel := context.WithTimeout(ctx, c.t.connectTimeout)
		defer cancel()
		raw, err = c.via.forward(timed, "tcp", c.t.addr())
	}
	if err != nil {
		var kind error
		if !errors.Is(err, ErrHostKey) && !errors.Is(err, ErrAuth) && !errors.Is(err, ErrForwarding) {
			kind = ErrUnreachable
		}
		return nil, c.fail(kind, err, "", "can't connect through the jump host")
	}
	return raw, nil
}

// plain strips Go's "dial tcp 1.2.3.4:22:", which the error says already.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Timeout() {
			return errors.New("no answer in time")
		}
		return op.Err
	}
	return err
}

func (c *Conn) explain(ctx context.Context, check *hostKeyCheck, login *login, algorithms []string, late bool, err error) error {
	text := err.Error()
	switch {
	case ctx.Err() != nil:
		return c.fail(nil, context.Cause(ctx), "", "connect")
	case check.err != nil:
		return check.err
	case late:
		return c.fail(ErrUnreachable, nil, "Check that it is an SSH server and not overloaded, or give it more time",
			"connected, but the SSH server did not finish the greeting and login within %s", c.t.connectTimeout)
	case strings.Contains(text, "no common algorithm for host key"):
		return c.fail(ErrHostKey, nil, "Compare with `ssh-keyscan` and the files /etc/ssh/ssh_host_*_key.pub on the host, then mend known_hosts or host_key",
			"the host has no key of the known kind (%s)", strings.Join(algorithms, ", "))
	case strings.Contains(text, "no common algorithm"):
		return c.fail(nil, err, "Bring the host's OpenSSH up to date", "the SSH server and this program have no common algorithm")
	case strings.Contains(text, "unable to authenticate"), strings.Contains(text, "Too many authentication failures"),
		strings.Contains(text, "no common public key signature algorithm"), login.failed != nil:
		return login.refused(c, err)
	}
	return c.fail(ErrUnreachable, err, "Check that it is an SSH server, and its log (MaxStartups, AllowUsers, hosts.deny)", "the SSH server ended the connection before the login")
}

// listening counts what comes from a host.
type listening struct {
	net.Conn
	heard *atomic.Int64
}

func (c *listening) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.heard.Add(int64(n))
	return n, err
}

// watch keeps a connection alive and notices its end. A host that sends anything is
// there: on a slow line the question waits behind all that is being uploaded.
func (c *Conn) watch(l *live) {
	gone := make(chan struct{})
	go func() {
		l.client.Wait()
		close(gone)
	}()
	tick := time.NewTicker(c.t.keepAlive)
	defer tick.Stop()
	answers := make(chan error, 1)
	asked, unanswered, heard := false, 0, l.heard.Load()
	for over := false; !over; {
		select {
		case <-gone:
			over = true
		case err := <-answers:
			asked, unanswered = false, 0
			over = err != nil
		case <-tick.C:
			now := l.heard.Load()
			switch {
			case !asked:
				asked = true
				go func() { // ends at the latest when the connection is closed
					_, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil)
					answers <- err
				}()
			case now != heard:
				unanswered = 0
			default:
				unanswered++
				over = unanswered >= missed
			}
			heard = now
		}
	}
	l.client.Close()
	close(l.dead)
	<-gone
}

func (c *Conn) close() {
	c.mu.Lock()
	c.closed = true
	l := c.live
	c.mu.Unlock()
	if l != nil {
		l.client.Close()
		<-l.dead
	}
}
