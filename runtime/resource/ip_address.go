package resource

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// ipAddress is an address in 127/8, which every Linux host answers without any
// change to the kernel: what makes it move is only that its group runs on one
// node at a time.
type ipAddress struct {
	env     Env
	address netip.Addr
}

func newIPAddress(env Env, a *attributes) *ipAddress {
	k := &ipAddress{env: env}
	text := a.text("address")
	if text == "" {
		if len(a.problems) == 0 {
			a.problem("address is missing")
		}
		return k
	}
	host, _, prefixed := strings.Cut(text, "/")
	address, err := netip.ParseAddr(host)
	if err == nil && prefixed {
		_, err = netip.ParsePrefix(text)
	}
	if err != nil {
		a.problem("address = %q is no IP address; write it as 127.77.0.10, with or without a prefix length", text)
		return k
	}
	k.address = address.Unmap()
	return k
}

func (k *ipAddress) start(context.Context) error {
	if !loopback.Contains(k.address) {
		return fmt.Errorf("address %s: this version doesn't add addresses to interfaces; use one in 127/8, as 127.77.0.10", k.address)
	}
	return nil
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func (k *ipAddress) stop(context.Context)    {}
func (k *ipAddress) alive() error            { return nil }
func (k *ipAddress) exited() <-chan struct{} { return nil }
func (k *ipAddress) program() (Program, error) {
	return Program{Dir: k.env.Dir, Env: k.env.environ("", nil)}, nil
}
