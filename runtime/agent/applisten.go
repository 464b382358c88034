package agent

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A group's programs share the agent with all other groups, and the monitor keeps
// their checkpoints by the same socket: one that opens connections and never
// closes them, or that reads nothing, takes no more than its socket's part.
const (
	maxAppConns = 256              // at once on one group's socket
	keptConns   = 16               // of them for the agent's own user and root: the monitor
	appWrite    = 30 * time.Second // in which a caller takes what is written to it
)

// groupListener lets in whom the group's resources run as, as many at once as
// the limit says.
type groupListener struct {
	net.Listener
	group   string
	allowed []uint32 // user ids; the first two are root and the agent's own
	open    atomic.Int32
}

// Accept hangs up on everybody else.
func (g *groupListener) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, ok := peerID(c)
		if !ok || !slices.Contains(g.allowed, uid) {
			c.Close()
			continue
		}
		most := int32(maxAppConns)
		if !slices.Contains(g.allowed[:2], uid) {
			most -= keptConns
		}
		if g.open.Add(1) > most {
			g.open.Add(-1)
			turnAway(c, most)
			continue
		}
		return &appConn{UnixConn: c.(*net.UnixConn), g: g}, nil
	}
}

// turnAway answers before anything was asked, without waiting for it.
func turnAway(c net.Conn, most int32) {
	body := fmt.Sprintf(`{"format_version":"1.0","status":503,"code":"busy","message":"%d connections are open on this group's socket already","hint":"close those that are not needed, or use one for several requests"}`+"\n", most)
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // it fits the socket's buffer
	_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	c.Close()
}

// appConn gives its place back when it is closed, and ends when its caller takes
// nothing any more.
type appConn struct {
	*net.UnixConn
	g    *groupListener
	once sync.Once
}

func (c *appConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(appWrite))
	return c.UnixConn.Write(p)
}

func (c *appConn) Close() error {
	c.once.Do(func() { c.g.open.Add(-1) })
	return c.UnixConn.Close()
}
