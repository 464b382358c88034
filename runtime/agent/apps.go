package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// apps are the sockets by which resources reach the API: one for each group that
// runs here, with the rights of that group's resources (API role application) and
// no more. Only root, the agent's user and the users that the group's resources
// run as may connect: the kernel says who does.
//
// It lies in the node's run directory, which nobody else may enter, unless a
// resource of the group runs as another user: then below /run/clusterplan, which
// everybody may pass. The agent removes it when the group is gone from the node,
// and when it ends.
type apps struct {
	private string // directory
	shared  string
	server  *http.Server
	log     *slog.Logger

	queue chan appSocket // from the loop, which never waits for it
	open  map[string]openSocket
}

type openSocket struct {
	appSocket
	net.Listener
}

// appSocket is a group that comes (users set) or goes.
type appSocket struct {
	group string // id
	path  string
	users []string // that its resources run as, beside the agent's
	close bool
}

const sharedApps = "/run/clusterplan"

func newApps(n *Node) *apps {
	return &apps{
		private: filepath.Join(n.files.dir, runDir), shared: filepath.Join(sharedApps, n.facts.NodeID), log: n.log,
		queue: make(chan appSocket, 1024), open: map[string]openSocket{},
	}
}

// socket is where a group's socket is; users are those that its resources run as
// beside the agent's own.
func (a *apps) socket(group string, resources []spec.Resource) (path string, users []string) {
	for _, r := range resources {
		if name, _ := r.Attributes["user"].(string); name != "" && !slices.Contains(users, name) {
			users = append(users, name)
		}
	}
	dir := a.private
	if len(users) > 0 && os.Geteuid() == 0 {
		dir = a.shared
	}
	return filepath.Join(dir, "group-"+fileName(group)+".sock"), users
}

// fileName keeps an id within its directory.
func fileName(id string) string {
	safe := []byte(id)
	for i, c := range safe {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			safe[i] = '_'
		}
	}
	return string(safe)
}

// starts and ends are the loop's word; they never block.
func (a *apps) starts(group, path string, users []string) {
	a.put(appSocket{group: group, path: path, users: users})
}
func (a *apps) ends(group string) { a.put(appSocket{group: group, close: true}) }

func (a *apps) put(s appSocket) {
	select {
	case a.queue <- s:
	default:
		a.log.Warn("too many groups come and go at once: a group has no socket for its resources", "group", s.group)
	}
}

// run serves the sockets until ctx ends.
func (a *apps) run(ctx context.Context, n *Node) error {
	a.removeStale()
	a.server = &http.Server{
		Handler: http.NotFoundHandler(), ReadHeaderTimeout: headerWithin, IdleTimeout: idleWithin, MaxHeaderBytes: 64 << 10,
		BaseContext: func(l net.Listener) context.Context {
			if g, ok := l.(*groupListener); ok {
				return WithLocalGroup(ctx, g.group, "group "+g.group)
			}
			return ctx
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			group, _, _ := LocalGroup(ctx)
			if uid, ok := peerID(c); ok && (uid == 0 || int(uid) == os.Geteuid()) {
				ctx = WithLocalMonitor(ctx)
			}
			return WithLocalGroup(ctx, group, peerUser(c))
		},
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	if n.cfg.API != nil {
		a.server.Handler = n.cfg.API(n)
	}
	defer a.removeStale()
	defer a.server.Close()
	for {
		select {
		case s := <-a.queue:
			a.change(s)
		case <-ctx.Done():
			return nil
		}
	}
}

// removeStale takes away what an agent that died left.
func (a *apps) removeStale() {
	old, _ := filepath.Glob(filepath.Join(a.private, "group-*.sock"))
	for _, path := range old {
		_ = os.Remove(path)
	}
	if os.Geteuid() == 0 {
		_ = os.RemoveAll(a.shared)
		_ = os.Remove(sharedApps) // if no other node of this host has one
	}
}

func (a *apps) change(s appSocket) {
	was, there := a.open[s.group]
	if there && !s.close && was.path == s.path && slices.Equal(was.users, s.users) {
		return
	}
	if there {
		was.Close()
		_ = os.Remove(was.path)
		delete(a.open, s.group)
	}
	if s.close {
		return
	}
	l, err := a.listen(s)
	if err != nil {
		a.log.Error("a group has no socket for its resources; they run without the API", "group", s.group, "err", err)
		return
	}
	a.open[s.group] = openSocket{s, l}
	go func() { _ = a.server.Serve(l) }() // until l or the server is closed
}

// listen makes the socket where nobody else can come yet, and moves it to its
// place when its owner and mode are right.
func (a *apps) listen(s appSocket) (net.Listener, error) {
	allowed := []uint32{0, uint32(os.Geteuid())}
	for _, name := range s.users {
		uid, err := userID(name)
		if err != nil {
			return nil, err
		}
		allowed = append(allowed, uid)
	}
	dir := filepath.Dir(s.path)
	if dir == a.shared {
		for _, d := range []string{sharedApps, a.shared} {
			if err := os.Mkdir(d, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, err
			}
			if err := os.Chmod(d, 0o711); err != nil { // whatever the umask
				return nil, err
			}
		}
	}
	making := filepath.Join(dir, ".making")
	if err := os.Mkdir(making, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	defer os.Remove(making)
	temp := filepath.Join(making, filepath.Base(s.path))
	l, err := listenLocal(temp)
	if err != nil {
		return nil, err
	}
	switch len(allowed) {
	case 2:
	case 3:
		err = os.Chown(temp, int(allowed[2]), -1)
	default: // several users: the kernel's word on who connects decides alone
		err = os.Chmod(temp, 0o666)
	}
	if err == nil {
		err = os.Rename(temp, s.path)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(temp)
		return nil, err
	}
	return &groupListener{Listener: l, group: s.group, allowed: allowed}, nil
}

// userID finds a user by name or number.
func userID(name string) (uint32, error) {
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	uid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("user %q: there is no such user on this node", name)
	}
	return uint32(uid), nil
}

// peerID is the user at the other end of a Unix socket.
func peerID(c net.Conn) (uid uint32, ok bool) {
	unixConn, ok := c.(syscall.Conn)
	if !ok {
		return 0, false
	}
	ok = false
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, ok
}
