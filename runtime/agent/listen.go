package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/pki"
)

const (
	handshakeWithin = 5 * time.Second
	maxHandshakes   = 64 // at once; more wait in the kernel's queue
	headerWithin    = 5 * time.Second
	idleWithin      = 2 * time.Minute
	maxSocketPath   = 107 // bytes of a Unix socket's address
)

// front is all that the node listens on: one TCP port (mutual TLS: the API, and
// by ALPN the streams of other nodes' drivers), one UDP port with the same
// number (frames), and a Unix socket (the API, for this user).
type front struct {
	udp    *udp
	tcp    net.Listener
	local  net.Listener
	socket string
	tls    *tls.Config
}

func (n *Node) listen() (_ *front, err error) {
	f := &front{socket: filepath.Join(n.files.dir, runDir, socketFile)}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.tls, err = n.serverTLS(); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(n.files.dir, caFile), err)
	}
	addr := n.files.conf.Address
	if f.tcp, err = net.Listen("tcp", addr); err != nil {
		return nil, listenError("tcp", addr, err)
	}
	if f.udp, err = n.openUDP(addr); err != nil {
		return nil, listenError("udp", addr, err)
	}
	if f.local, err = listenLocal(f.socket); err != nil {
		return nil, err
	}
	return f, nil
}

// serverTLS takes callers of the API with a certificate that is valid now, and
// nodes, by the protocols that are theirs, whatever its dates.
func (n *Node) serverTLS() (*tls.Config, error) {
	nodes, err := pki.NodesServerConfig(n.files.ca, n.facts.ClusterID, n.files.cert, protoRaft, protoKeys)
	if err != nil {
		return nil, err
	}
	api, err := pki.ServerConfig(n.files.ca, n.facts.ClusterID, n.files.cert, "http/1.1")
	if err != nil {
		return nil, err
	}
	nodes, api = n.cert.serve(nodes), n.cert.serve(api)
	nodes.SessionTicketsDisabled, api.SessionTicketsDisabled = true, true // none stands for the check
	api.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, p := range hello.SupportedProtos {
			if p == protoRaft || p == protoKeys {
				return nodes, nil
			}
		}
		return nil, nil // api
	}
	return api, nil
}

func (f *front) close() {
	if f.tcp != nil {
		f.tcp.Close()
	}
	if f.udp != nil {
		f.udp.close()
	}
	if f.local != nil {
		f.local.Close()
		_ = os.Remove(f.socket)
	}
}

// listenError says who holds a port that is taken, as far as can be seen.
func listenError(network, addr string, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		who := holder(network, addr)
		if who == "" {
			who = "a process that can't be seen from here (another user's or another container's), or by a connection that ended less than a minute ago"
		}
		return fmt.Errorf("listen on %s %s: the port is taken by %s; stop that, or give the node another address", network, addr, who)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s %s: this host has no such address; give the node one of its own", network, addr)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("listen on %s %s: not allowed; ports below 1024 need privileges", network, addr)
	}
	return fmt.Errorf("listen on %s %s: %w", network, addr, err)
}

// listenLocal makes the socket that only this user and root may use. What lies
// there is of an agent that died: the pid file's lock says that none runs.
func listenLocal(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make the local socket: %w", err)
	}
	name := path
	if len(name) > maxSocketPath { // then by its directory's descriptor
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return nil, fmt.Errorf("make the local socket: %w", err)
		}
		defer dir.Close()
		name = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, fmt.Errorf("make the local socket %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // close removes it, by its real name
	if err := os.Chmod(path, 0o600); err != nil { // its directory is 0700: nobody was faster
		l.Close()
		return nil, fmt.Errorf("make the local socket: %w", err)
	}
	return l, nil
}

type localUser struct{}

// LocalUser names who called by the node's own socket; false for the network.
func LocalUser(ctx context.Context) (string, bool) {
	name, ok := ctx.Value(localUser{}).(string)
	return name, ok
}

type localGroup struct{}

// LocalGroup tells which group (its id) and which user called by a group's
// socket; false for all other callers.
func LocalGroup(ctx context.Context) (group, user string, ok bool) {
	who, ok := ctx.Value(localGroup{}).([2]string)
	return who[0], who[1], ok
}

// WithLocalGroup marks what comes by a group's socket.
func WithLocalGroup(ctx context.Context, group, user string) context.Context {
	return context.WithValue(ctx, localGroup{}, [2]string{group, user})
}

type localMonitor struct{}

// LocalMonitor tells whether it was the agent's own user, or root, who called by
// a group's socket: the monitor, which keeps checkpoints, and not a program that
// runs as another user.
func LocalMonitor(ctx context.Context) bool { return ctx.Value(localMonitor{}) != nil }

// WithLocalMonitor marks such a call.
func WithLocalMonitor(ctx context.Context) context.Context {
	return context.WithValue(ctx, localMonitor{}, true)
}

func peerUser(c net.Conn) string {
	switch uid, ok := peerID(c); {
	case !ok:
		return "local"
	case uid == 0:
		return "root"
	default:
		return fmt.Sprintf("uid %d", uid)
	}
}

// serve takes connections until ctx ends.
func (f *front) serve(ctx context.Context, n *Node) error {
	handler := http.NotFoundHandler()
	if n.cfg.API != nil {
		handler = n.cfg.API(n)
	}
	server := func(onConn func(context.Context, net.Conn) context.Context) *http.Server {
		return &http.Server{
			Handler: handler, ReadHeaderTimeout: headerWithin, IdleTimeout: idleWithin, MaxHeaderBytes: 64 << 10,
			BaseContext: func(net.Listener) context.Context { return ctx },
			ConnContext: onConn,
			ErrorLog:    slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
		}
	}
	api := &handOver{addr: f.tcp.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	far, near := server(nil), server(func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, localUser{}, peerUser(c))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return served(far.Serve(api)) })
	g.Go(func() error { return served(near.Serve(f.local)) })
	g.Go(func() error { return f.accept(ctx, n, f.tcp, api) })
	g.Go(func() error { return n.links.serve(ctx, n, f, api) })
	g.Go(func() error {
		<-ctx.Done()
		f.tcp.Close()
		far.Close()
		near.Close()
		return nil
	})
	return g.Wait()
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve the API: %w", err)
}

// accept shakes hands and parts the streams of nodes from calls of the API.
func (f *front) accept(ctx context.Context, n *Node, tcp net.Listener, api *handOver) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxHandshakes)
	told := limiter{every: 10 * time.Second}
	for {
		conn, err := tcp.Accept()
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", tcp.Addr(), err)
		case err != nil: // out of descriptors, or gone before it was taken: not for ever
			n.log.Warn("a connection was not taken", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			secure := tls.Server(conn, f.tls)
			hctx, cancel := context.WithTimeout(ctx, handshakeWithin)
			err := secure.HandshakeContext(hctx)
			cancel()
			<-slots
			if err != nil {
				conn.Close()
				if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) { // it only knocked
					n.log.Debug("a caller went away", "from", conn.RemoteAddr(), "err", err)
				} else if more, ok := told.may(); ok {
					n.log.Warn("a caller was refused: it speaks no TLS or has no certificate of this cluster", "from", conn.RemoteAddr(), "err", err, "others", more)
				}
				return
			}
			switch secure.ConnectionState().NegotiatedProtocol {
			case protoRaft:
				if err := n.receive(ctx, secure); err != nil {
					n.log.Warn("a node's stream was closed", "from", conn.RemoteAddr(), "err", err)
				}
			case protoKeys:
				if err := n.giveKeys(ctx, secure); err != nil {
					n.log.Warn("the frame keys were not handed out", "to", conn.RemoteAddr(), "err", err)
				}
			default:
				api.give(secure)
			}
		}()
	}
}

// handOver is a listener of connections that were accepted and verified elsewhere.
type handOver struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (h *handOver) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		c.Close()
	}
}

func (h *handOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handOver) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handOver) Addr() net.Addr { return h.addr }

// limiter lets one line through in a while and counts what it keeps back.
type limiter struct {
	every time.Duration
	mu    sync.Mutex
	last  time.Time
	kept  int
}

func (l *limiter) may() (kept int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.last.IsZero() && now.Sub(l.last) < l.every {
		l.kept++
		return 0, false
	}
	kept, l.kept, l.last = l.kept, 0, now
	return kept, true
}
