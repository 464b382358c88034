package libvirtconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/digitalocean/go-libvirt/socket/dialers"

	"github.com/clusterplan/clusterplan/internal/sshconn"
)

// Where libvirtd listens unless the URI says something else.
const (
	systemSocket = "/run/libvirt/libvirt-sock"
	tcpPort      = "16509"
	tlsPort      = "16514"
)

// target is a URI, read.
type target struct {
	driver  string // what libvirtd is asked to open: qemu:///system
	network string // unix, tcp, tls
	address string
	name    string // in errors
	pool    *sshconn.Pool
	ssh     *sshconn.Conn // the host whose socket it is; nil: this machine
	tls     func() (net.Conn, error)
}

func (t target) String() string { return t.name }

func parse(cfg Config) (target, error) {
	t, err := parseURI(cfg)
	if err != nil {
		shown := "uri"
		if u, bad := url.Parse(cfg.URI); bad == nil { // with a password, it isn't to be seen
			shown = fmt.Sprintf("uri %q", u.Redacted())
		}
		return t, fmt.Errorf("%s: %w", shown, err)
	}
	return t, nil
}

func parseURI(cfg Config) (target, error) {
	u, err := url.Parse(cfg.URI)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return target{}, errors.New("it is no URI of libvirt's; write for example qemu:///system or qemu+ssh://root@host/system")
	}
	scheme, transport, named := strings.Cut(u.Scheme, "+")
	if !named {
		transport = "unix"
		if u.Host != "" {
			transport = "tls"
		}
	}
	if _, secret := u.User.Password(); secret {
		return target{}, errors.New("it has a password in it; use a key, or an agent")
	}
	q := u.Query()
	if u.Path == "" {
		return target{}, fmt.Errorf("it has no path; write for example %s/system", u.Redacted())
	}
	t := target{driver: cmp.Or(q.Get("name"), (&url.URL{Scheme: scheme, Path: u.Path}).String())}
	if (transport == "unix") != (u.Host == "") {
		return t, errors.New("a host goes with +ssh, +tls or +tcp, as qemu+ssh://root@host/system")
	}
	switch transport {
	case "unix":
		t.network, t.address = "unix", cmp.Or(q.Get("socket"), socketOf(u.Path))
		t.name = t.address
	case "ssh":
		h := sshconn.Config{Host: u.Hostname(), User: u.User.Username(), PrivateKeyFile: q.Get("keyfile"), KnownHostsFile: q.Get("known_hosts"), PrivateKey: cfg.PrivateKey, HostKey: cfg.HostKey}
		if p := u.Port(); p != "" {
			if h.Port, err = strconv.Atoi(p); err != nil {
				return t, err
			}
		}
		if q.Get("no_verify") != "" && q.Get("no_verify") != "0" {
			return t, errors.New("no_verify would trust any host; put the host's key into known_hosts")
		}
		t.pool = sshconn.New(sshconn.Options{Log: cfg.Log})
		if t.ssh, err = t.pool.Conn(h); err != nil {
			return t, err
		}
		t.network, t.address = "unix", cmp.Or(q.Get("socket"), systemSocket)
		t.name = t.address + " of " + u.Host
	case "tls":
		var o []dialers.TLSOption
		if p := u.Port(); p != "" {
			o = append(o, dialers.UseTLSPort(p))
		}
		if dir := q.Get("pkipath"); dir != "" {
			o = append(o, dialers.UsePKIPath(dir))
		}
		if q.Get("no_verify") != "" && q.Get("no_verify") != "0" {
			return t, errors.New("no_verify would trust any host; put its authority into cacert.pem")
		}
		t.network, t.tls, t.name = "tls", dialers.NewTLS(u.Hostname(), o...).Dial, u.Host
		if cfg.Certificate != "" || cfg.CA != "" {
			if t.tls, err = withTexts(cfg, u.Hostname(), cmp.Or(u.Port(), tlsPort)); err != nil {
				return t, err
			}
		}
	case "tcp":
		t.network, t.address = "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), tcpPort))
		t.name = t.address
	default:
		return t, fmt.Errorf("+%s is not known; there are +ssh, +tls, +tcp, and none for this machine", transport)
	}
	return t, nil
}

// socketOf is where libvirtd listens on this machine: a user's own one for
// session, else the system's.
func socketOf(path string) string {
	if path != "/session" || os.Getuid() == 0 && os.Getenv("XDG_RUNTIME_DIR") == "" {
		return systemSocket
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return systemSocket
		}
		return filepath.Join(cache, "libvirt", "libvirt-sock")
	}
	return filepath.Join(dir, "libvirt", "libvirt-sock")
}

func (t target) close() error {
	if t.pool == nil {
		return nil
	}
	return t.pool.Close()
}

func (t target) dial(ctx context.Context) (net.Conn, error) {
	switch {
	case t.ssh != nil:
		return t.ssh.Dial(ctx, t.network, t.address)
	case t.tls != nil:
		return dialTLS(ctx, t.tls)
	}
	return (&net.Dialer{}).DialContext(ctx, t.network, t.address)
}

// dialTLS ends with ctx; the library's own dialling has a time-out, and no more.
func dialTLS(ctx context.Context, dial func() (net.Conn, error)) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		conn, err := dial()
		done <- answer{conn, err}
	}()
	select {
	case a := <-done:
		return a.conn, a.err
	case <-ctx.Done():
		go func() {
			if a := <-done; a.err == nil {
				a.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// refused is why no connection came about, and what to do about it.
func (t target) refused(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	todo := "look whether the host is up and libvirtd listens there"
	switch local := t.network == "unix" && t.ssh == nil; {
	case t.ssh != nil && libvirtError(err) == nil:
		todo = "log in there and look whether libvirtd runs (systemctl status libvirtd), and whether your user may use its socket (group libvirt)"
	case errors.Is(err, fs.ErrPermission):
		todo = "your user may not use this socket: add it to the group libvirt and log in again (usermod -aG libvirt NAME), or run this as root"
	case local && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		todo = "no libvirtd runs on this machine: install it (Debian: apt install libvirt-daemon-system qemu-system-x86) and start it (systemctl start libvirtd), or name another one with uri in the provider block"
	case libvirtError(err) != nil && strings.Contains(err.Error(), "authentication"):
		todo = "your user may not manage machines: add it to the group libvirt and log in again (usermod -aG libvirt NAME), or run this as root"
	case libvirtError(err) != nil:
		todo = "libvirtd runs, but does not open " + t.driver + ": is the driver installed (Debian: libvirt-daemon-driver-qemu), and the URI right?"
	}
	return fmt.Errorf("%w at %s: %w; %s", ErrUnreachable, t.name, err, todo)
}
