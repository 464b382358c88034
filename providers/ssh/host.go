package ssh

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/clusterplan/clusterplan/providers"
)

// host is a machine for one look or one phase.
type host struct {
	*machine

	looking sync.Mutex
	seen    *look // nil: not looked yet, or changed since
	used    bool  // seen has answered Alive
}

func (h *host) Root() string           { return h.root }
func (h *host) Mutex() sync.Locker     { return &h.install }
func (h *host) Files() providers.Files { return files{h} }

func (h *host) Arch(ctx context.Context) (string, error) {
	f, err := h.known(ctx)
	return f.arch, err
}

// known are the machine's facts.
func (h *host) known(ctx context.Context) (facts, error) {
	h.mu.Lock()
	f := h.facts
	h.mu.Unlock()
	if f == nil {
		if _, err := h.look(ctx); err != nil {
			return facts{}, err
		}
		h.mu.Lock()
		f = h.facts
		h.mu.Unlock()
	}
	return *f, nil
}

func (h *host) Address(_ context.Context, _, wanted string, _ int) (string, error) {
	return wanted, nil
}

func (h *host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return h.dial(ctx, network, address)
}

// FreePort looks for a socket of the port: a program that could try to bind it
// need not be there yet.
func (h *host) FreePort(ctx context.Context, hostPort string) (bool, error) {
	name, text, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return false, fmt.Errorf("%s has no port", hostPort)
	}
	out, err := h.run(ctx, `cd /proc/net || exit 1; for p in tcp udp; do echo $p; cat $p ${p}6 2>/dev/null; done; :`)
	if err != nil {
		return false, err
	}
	at, _ := netip.ParseAddr(name)
	return !listens(string(out), at, port), nil
}

// listens tells whether /proc/net has a socket that keeps others from the port
// of an address (not valid: a name, so any).
func listens(text string, at netip.Addr, port int) bool {
	udp := false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 1 {
			udp = strings.HasPrefix(f[0], "udp")
			continue
		}
		if len(f) < 4 || !strings.HasSuffix(f[0], ":") {
			continue
		}
		ip, hexPort, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hexPort, 16, 16)
		if err != nil || int(n) != port || !udp && f[3] != "0A" {
			continue
		}
		a := kernelAddr(ip)
		if !a.IsValid() || a.IsUnspecified() || !at.IsValid() || a == at.Unmap() {
			return true
		}
	}
	return false
}

// kernelAddr reads an address of /proc/net: words in the machine's order, which
// is little endian on all that this runs on but s390x.
func kernelAddr(text string) netip.Addr {
	b := make([]byte, len(text)/2)
	for i := 0; i+8 <= len(text); i += 8 {
		w, err := strconv.ParseUint(text[i:i+8], 16, 32)
		if err != nil {
			return netip.Addr{}
		}
		binary.LittleEndian.PutUint32(b[i/2:], uint32(w))
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}
