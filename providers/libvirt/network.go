package libvirt

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// gatewayOf is the hypervisor's address on a network: the first one.
func gatewayOf(pre netip.Prefix) netip.Addr { return pre.Addr().Next() }

// lastOf is the network's broadcast address.
func lastOf(pre netip.Prefix) netip.Addr {
	b := pre.Addr().As4()
	for i := pre.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// middleOf parts the addresses: machines of definitions get theirs from below,
// for good; who else comes gets one from there on.
func middleOf(pre netip.Prefix) netip.Addr {
	b := pre.Addr().As4()
	b[pre.Bits()/8] |= 1 << (7 - pre.Bits()%8)
	return netip.AddrFrom4(b)
}

// blockOf is a schema as a block, for its default value.
func blockOf(s spec.Schema) spec.Block { return spec.Block{Attributes: s.Attributes, Blocks: s.Blocks} }

func (n *networkSpec) xml(id string) (string, error) {
	x := xmlNetwork{Name: n.Name, UUID: uuidText(uuidOf(addr.TypeNetwork, id))}
	if n.Mode == NetworkBridge {
		x.Forward, x.Bridge = &xmlForward{Mode: "bridge"}, &xmlBridge{Name: n.Bridge}
		return toXML(x)
	}
	pre, err := subnet(n.Subnet)
	if err != nil {
		return "", err
	}
	if n.Mode == NetworkNAT {
		x.Forward = &xmlForward{Mode: "nat"}
	}
	// Without the spanning tree protocol: with it Linux has each machine that is
	// plugged in wait for 4 s, whatever the delay, and what it asks in that time is lost.
	x.Bridge = &xmlBridge{STP: "off", Delay: "0"}
	if n.Domain != "" {
		x.Domain = &xmlDomain{Name: n.Domain, LocalOnly: "yes"}
	}
	if !n.DNS {
		x.DNS = &xmlDNS{Enable: "no"}
	}
	ip := xmlIP{Address: gatewayOf(pre).String(), Prefix: fmt.Sprint(pre.Bits())}
	if n.DHCP {
		ip.DHCP = &xmlDHCP{Ranges: []xmlRange{{Start: middleOf(pre).String(), End: lastOf(pre).Prev().String()}}}
	}
	x.IPs = []xmlIP{ip}
	if pre6, err := netip.ParsePrefix(n.Subnet6); err == nil {
		x.IPs = append(x.IPs, xmlIP{Family: "ipv6", Address: gatewayOf(pre6).String(), Prefix: "64"})
		if x.Forward != nil {
			x.Forward.NAT = &xmlNAT{IPv6: "yes"}
		}
	}
	return toXML(x)
}

// applyNetwork makes a network or mends it: it is there, runs, and comes up with
// the hypervisor as it should.
func (p *Provider) applyNetwork(ctx context.Context, req providers.ApplyRequest) (*providers.Object, error) {
	var want networkSpec
	if err := schema.DecodeKnown(req.Planned, &want); err != nil {
		return nil, err
	}
	if err := want.check(); err != nil {
		return nil, err
	}
	text, err := want.xml(req.ID)
	if err != nil {
		return nil, err
	}
	err = p.conn.Do(ctx, "make network "+want.Name, func(l *libvirt.Libvirt) error {
		n, err := l.NetworkLookupByUUID(uuidOf(addr.TypeNetwork, req.ID))
		made := false
		if libvirtconn.NotFound(err) {
			if _, err := l.NetworkLookupByName(want.Name); err == nil {
				return taken(addr.TypeNetwork, want.Name, p.conn.URI())
			}
			if n, err = l.NetworkDefineXML(text); err == nil {
				made = true
			}
		}
		if err != nil {
			return networkError(err, want)
		}
		if active, err := l.NetworkIsActive(n); err != nil {
			return err
		} else if active == 0 {
			if err := l.NetworkCreate(n); err != nil && !alreadyActive(err) {
				if made { // nothing stays of one that can't run
					if undo := l.NetworkUndefine(n); undo != nil && !libvirtconn.NotFound(undo) {
						p.log.Warn("a network that couldn't be started stays defined", "network", want.Name, "err", undo)
					}
				}
				return networkError(err, want)
			}
		}
		return l.NetworkSetAutostart(n, number(want.Autostart))
	})
	if err != nil {
		return nil, err
	}
	return p.readNetwork(ctx, req.ID)
}

func number(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// networkError says what to do about a network that libvirtd doesn't make.
func networkError(err error, want networkSpec) error {
	switch msg := err.Error(); {
	case strings.Contains(msg, "already in use by interface"), strings.Contains(msg, "is already in use"):
		return cty.GetAttrPath("subnet").NewErrorf("subnet %s is taken on the hypervisor: %w; choose another one, or remove what has it (ip address there)", want.Subnet, err)
	case strings.Contains(msg, "dnsmasq"):
		return fmt.Errorf("%w; libvirt gives addresses and names by dnsmasq: install it on the hypervisor (Debian: dnsmasq-base), or set dhcp and dns to false", err)
	case strings.Contains(msg, "iptables") || strings.Contains(msg, "firewall") || strings.Contains(msg, "nft"):
		return fmt.Errorf("%w; libvirt needs iptables on the hypervisor (Debian: iptables)", err)
	}
	return err
}

// readNetwork says what is there.
func (p *Provider) readNetwork(ctx context.Context, id string) (*providers.Object, error) {
	var o *providers.Object
	err := p.conn.Do(ctx, "read network "+id, func(l *libvirt.Libvirt) error {
		o = nil
		n, err := l.NetworkLookupByUUID(uuidOf(addr.TypeNetwork, id))
		if libvirtconn.NotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		x, err := describeNetwork(l, n)
		if libvirtconn.NotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		auto, err := l.NetworkGetAutostart(n)
		if err != nil {
			return err
		}
		active, err := l.NetworkIsActive(n)
		if err != nil {
			return err
		}
		o = &providers.Object{ID: id, Value: networkValue(x, auto == 1)}
		if active == 0 {
			o.Health = append(o.Health, "network is down")
		}
		return nil
	})
	return o, err
}

func describeNetwork(l *libvirt.Libvirt, n libvirt.Network) (xmlNetwork, error) {
	var x xmlNetwork
	text, err := l.NetworkGetXMLDesc(n, 0)
	if err != nil {
		return x, err
	}
	return x, fromXML(text, &x)
}

func networkValue(x xmlNetwork, auto bool) cty.Value {
	attrs := schema.BlockDefault(blockOf(networkSchema().WithIdentity())).AsValueMap()
	set := func(name, v string) {
		if v != "" {
			attrs[name] = cty.StringVal(v)
		}
	}
	set("name", x.Name)
	set("provider", Name)
	attrs["autostart"] = cty.BoolVal(auto)
	if x.Bridge != nil {
		set("interface", x.Bridge.Name)
	}
	switch {
	case x.Forward == nil:
		set("mode", NetworkIsolated)
	case x.Forward.Mode == "" || x.Forward.Mode == "nat":
		set("mode", NetworkNAT)
	default:
		set("mode", x.Forward.Mode) // others than bridge are of networks made elsewhere
		if x.Bridge != nil {
			set("bridge", x.Bridge.Name)
		}
		return cty.ObjectVal(attrs)
	}
	if x.Domain != nil {
		set("domain", x.Domain.Name)
	}
	attrs["dns"] = cty.BoolVal(x.DNS == nil || x.DNS.Enable != "no")
	attrs["dhcp"] = cty.False
	if ip, pre, ok := ipOf(x); ok {
		set("gateway", ip.Address)
		set("subnet", pre.Masked().String())
		attrs["dhcp"] = cty.BoolVal(ip.DHCP != nil)
	}
	if pre := prefix6Of(x); pre.IsValid() {
		set("gateway6", pre.Addr().String())
		set("subnet6", pre.Masked().String())
	}
	return cty.ObjectVal(attrs)
}

// ipOf is the IPv4 part of a network.
func ipOf(x xmlNetwork) (xmlIP, netip.Prefix, bool) {
	for _, ip := range x.IPs {
		if pre, ok := ip.prefix(); ok && pre.Addr().Is4() {
			return ip, pre, true
		}
	}
	return xmlIP{}, netip.Prefix{}, false
}

// prefix is the hypervisor's address on a network, with the network's length.
func (ip xmlIP) prefix() (netip.Prefix, bool) {
	a, err := netip.ParseAddr(ip.Address)
	if err != nil {
		return netip.Prefix{}, false
	}
	bits := -1
	if ip.Prefix != "" {
		fmt.Sscan(ip.Prefix, &bits)
	} else if mask, err := netip.ParseAddr(ip.Netmask); err == nil && mask.Is4() {
		bits = 0
		for _, b := range mask.As4() {
			for ; b != 0; b <<= 1 {
				bits++
			}
		}
	}
	pre := netip.PrefixFrom(a, bits)
	return pre, pre.IsValid()
}

// deleteNetwork removes a network; machines are off it by then, since they
// refer to it.
func (p *Provider) deleteNetwork(ctx context.Context, id string) error {
	return p.conn.Do(ctx, "remove network "+id, func(l *libvirt.Libvirt) error {
		n, err := l.NetworkLookupByUUID(uuidOf(addr.TypeNetwork, id))
		if libvirtconn.NotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.NetworkDestroy(n); err != nil && !notActive(err) && !libvirtconn.NotFound(err) {
			return err
		}
		if err := l.NetworkUndefine(n); err != nil && !libvirtconn.NotFound(err) {
			return err
		}
		return nil
	})
}
