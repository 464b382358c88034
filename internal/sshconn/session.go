package sshconn

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	sessionPause = 500 * time.Millisecond
	sessionWait  = 10 * time.Second // for one while we hold none ourselves
)

// session is an SSH session that counts among its host's.
type session struct {
	*ssh.Session
	c     *Conn
	ended chan struct{}
	once  sync.Once
}

// release closes the session and wakes one who waits for a place.
func (s *session) release() {
	s.once.Do(func() {
		s.Session.Close()
		close(s.ended)
		s.c.mu.Lock()
		s.c.sessions--
		s.c.mu.Unlock()
		select {
		case s.c.freed <- struct{}{}:
		default:
		}
	})
}

// session opens one. A host that allows no more at once (MaxSessions) is asked
// again when one of ours has ended; a connection that turns out to be dead is
// made anew, once.
func (c *Conn) session(ctx context.Context) (*session, error) {
	began, redial := time.Now(), true
	for {
		var s *ssh.Session
		refused, err := c.channel(ctx, &redial, "open a session", func(l *live) (err error) { s, err = openSession(ctx, l); return err })
		if err != nil {
			return nil, err
		}
		if refused == nil {
			c.mu.Lock()
			c.sessions++
			c.mu.Unlock()
			return &session{Session: s, c: c, ended: make(chan struct{})}, nil
		}
		c.mu.Lock()
		ours := c.sessions
		c.mu.Unlock()
		pause := sessionPause
		if ours == 0 {
			if time.Since(began) > sessionWait {
				return nil, c.fail(nil, refused, "Raise MaxSessions in its sshd_config", "the host opens no session")
			}
			pause = firstPause
		}
		select {
		case <-c.freed:
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, c.fail(nil, context.Cause(ctx), "", "wait for a session (the host allows %d at once)", ours)
		}
	}
}

// channel opens something on the connection. refused is the host's own no. A
// connection that turns out to be dead is made anew, where redial still says so.
func (c *Conn) channel(ctx context.Context, redial *bool, what string, open func(*live) error) (refused *ssh.OpenChannelError, err error) {
	for {
		l, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		if err = open(l); err == nil {
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, c.fail(nil, context.Cause(ctx), "", "%s", what)
		}
		if errors.As(err, &refused) {
			return refused, nil
		}
		l.client.Close()
		<-l.dead
		if !*redial {
			return nil, c.fail(ErrUnreachable, noEOF(err), "", "the connection was lost")
		}
		*redial = false
	}
}

// while is a context that also ends with the connection: what is opened in the moment
// in which that ends would never be answered.
func (l *live) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-l.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// openSession is NewSession with a context. A session that comes too late is closed.
func openSession(ctx context.Context, l *live) (*ssh.Session, error) {
	type opened struct {
		s   *ssh.Session
		err error
	}
	ctx, cancel := l.while(ctx)
	defer cancel()
	came := make(chan opened)
	go func() {
		s, err := l.client.NewSession()
		select {
		case came <- opened{s, err}:
		case <-ctx.Done():
			if s != nil {
				s.Close()
			}
		}
	}()
	select {
	case o := <-came:
		return o.s, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
