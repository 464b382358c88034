package resource

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// ipAddress is an address that moves with its group. One in 127/8 every Linux
// host answers without any change to the kernel: what makes it move is only
// that its group runs on one node at a time. Any other is added by the monitor.
type ipAddress struct {
	env   Env
	host  Host
	want  Address
	local bool // in 127/8

	held HeldAddress // nil: not there
}

func newIPAddress(env Env, host Host, a *attributes) *ipAddress {
	k := &ipAddress{env: env, host: host, want: Address{Interface: a.text("interface"), Probe: a.duration("probe")}}
	if a.values["probe"] == nil {
		k.want.Probe = spec.DefaultProbe
	}
	if k.want.Probe > maxProbe {
		a.problem("probe = %s: write %s at most", k.want.Probe, maxProbe)
	}
	text := a.text("address")
	if text == "" {
		if len(a.problems) == 0 {
			a.problem("address is missing")
		}
		return k
	}
	ip, _, prefixed := strings.Cut(text, "/")
	address, err := netip.ParseAddr(ip)
	if err == nil && prefixed {
		var p netip.Prefix
		p, err = netip.ParsePrefix(text)
		k.want.Bits = p.Bits()
	}
	if err != nil || address.Zone() != "" {
		a.problem("address = %q is no IP address; write it as 10.0.0.5 or fd00::5, with or without a prefix length", text)
		return k
	}
	k.want.Address = address.Unmap()
	k.local = loopback.Contains(k.want.Address)
	return k
}

// maxProbe bounds the probe: a host that has an address answers at once.
const maxProbe = 10 * time.Second

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func (k *ipAddress) start(ctx context.Context) error {
	if k.local {
		return nil
	}
	held, err := k.host.Hold(ctx, k.want)
	if err != nil {
		return err
	}
	k.held = held
	return nil
}

func (k *ipAddress) stop(context.Context, func(error)) {
	if k.held != nil {
		k.held.Release()
	}
}

func (k *ipAddress) alive() error {
	if k.held == nil {
		return nil
	}
	return k.held.Check()
}

func (k *ipAddress) exited() <-chan struct{} {
	if k.held == nil {
		return nil
	}
	return k.held.Lost()
}

func (k *ipAddress) program() (Program, error) {
	return Program{Dir: k.env.Dir, Env: k.env.environ("", nil)}, nil
}
