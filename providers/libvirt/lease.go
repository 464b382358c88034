package libvirt

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
)

// A machine's address is a host entry of its network: the DHCP server gives it
// always the same, it is known before the machine has ever run, and nobody has
// to be asked for it. The network's entries are the only record of it.

// nic is an interface of a machine as it is made.
type nic struct {
	network string
	mac     string
	address string // wanted, or that it has; "": none
	six     string // its IPv6 address; "": none
}

// lease gives an interface its address on its network, and has the DHCP server
// know it. One that has an entry already keeps it, unless another is wanted.
func (p *Provider) lease(ctx context.Context, machine string, n nic, prior string, path cty.Path) (address, six string, err error) {
	p.leases.Lock()
	defer p.leases.Unlock()
	err = p.conn.Do(ctx, "give machine "+machine+" its address on network "+n.network, func(l *libvirt.Libvirt) error {
		net, err := l.NetworkLookupByName(n.network)
		if libvirtconn.NotFound(err) {
			return fmt.Errorf("%s has no network %q; it was there when this was planned", p.conn.URI(), n.network)
		}
		if err != nil {
			return err
		}
		x, err := describeNetwork(l, net)
		if err != nil {
			return err
		}
		six = address6(prefix6Of(x), n.mac)
		ip, pre, ok := ipOf(x)
		if !ok || ip.DHCP == nil { // others give addresses there
			address = n.address
			return nil
		}
		if n.address != "" {
			if a, err := netip.ParseAddr(n.address); err != nil || !usable(a, pre) {
				return path.NewErrorf("%s is no address for a machine on network %s (%s): its first address is the hypervisor's, its last one everybody's", n.address, n.network, pre.Masked())
			}
		}
		for _, h := range ip.DHCP.Hosts {
			switch {
			case !strings.EqualFold(h.MAC, n.mac):
				if n.address != "" && h.IP == n.address {
					return path.NewErrorf("%s is %s's on network %s already; choose another address", n.address, h.Name, n.network)
				}
			case n.address == "" || h.IP == n.address:
				address = h.IP
				return nil
			default: // it is to have another one
				if err := updateHost(l, net, libvirt.NetworkUpdateCommandDelete, h); err != nil {
					return err
				}
			}
		}
		if address = n.address; address == "" {
			if address, err = freeAddress(ip, pre, prior); err != nil {
				return err
			}
		}
		return updateHost(l, net, libvirt.NetworkUpdateCommandAddLast, xmlHost{MAC: n.mac, Name: machine, IP: address})
	})
	return address, six, err
}

// usable tells whether a machine can have the address.
func usable(a netip.Addr, pre netip.Prefix) bool {
	pre = pre.Masked()
	return pre.Contains(a) && a != pre.Addr() && a != gatewayOf(pre) && a != lastOf(pre)
}

// freeAddress is the one that it had, or the first one that nobody has.
func freeAddress(ip xmlIP, pre netip.Prefix, prior string) (string, error) {
	has := map[string]bool{ip.Address: true}
	for _, h := range ip.DHCP.Hosts {
		has[h.IP] = true
	}
	pre = pre.Masked()
	if a, err := netip.ParseAddr(prior); err == nil && usable(a, pre) && !has[prior] {
		return prior, nil
	}
	end := lastOf(pre)
	if len(ip.DHCP.Ranges) > 0 {
		if from, err := netip.ParseAddr(ip.DHCP.Ranges[0].Start); err == nil && gatewayOf(pre).Next().Less(from) {
			end = from
		}
	}
	for a := gatewayOf(pre).Next(); a.Less(end); a = a.Next() {
		if !has[a.String()] {
			return a.String(), nil
		}
	}
	return "", fmt.Errorf("the network %s has no free address below %s; make its subnet bigger, or name an address in an interface block", pre, end)
}

func updateHost(l *libvirt.Libvirt, n libvirt.Network, command libvirt.NetworkUpdateCommand, h xmlHost) error {
	text, err := toXML(h)
	if err != nil {
		return err
	}
	flags := libvirt.NetworkUpdateAffectConfig
	if active, err := l.NetworkIsActive(n); err != nil {
		return err
	} else if active == 1 {
		flags |= libvirt.NetworkUpdateAffectLive
	}
	return l.NetworkUpdateCompat(n, command, libvirt.NetworkSectionIPDhcpHost, -1, text, flags)
}

// release takes the entries of a machine's interfaces out of their networks.
func release(l *libvirt.Libvirt, nics []nic) error {
	for _, i := range nics {
		if i.network == "" {
			continue
		}
		n, err := l.NetworkLookupByName(i.network)
		if libvirtconn.NotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		x, err := describeNetwork(l, n)
		if libvirtconn.NotFound(err) {
			continue // it went just now, with its entries
		}
		if err != nil {
			return err
		}
		ip, _, ok := ipOf(x)
		if !ok || ip.DHCP == nil {
			continue
		}
		for _, h := range ip.DHCP.Hosts {
			if strings.EqualFold(h.MAC, i.mac) {
				if err := updateHost(l, n, libvirt.NetworkUpdateCommandDelete, h); err != nil && !libvirtconn.NotFound(err) {
					return fmt.Errorf("free the address %s on network %s: %w", h.IP, i.network, err)
				}
			}
		}
	}
	return nil
}

// leaseOf is an interface's address by its network's entry, and its IPv6 address;
// "": none.
func leaseOf(l *libvirt.Libvirt, i nic) (address, six string, err error) {
	n, err := l.NetworkLookupByName(i.network)
	if libvirtconn.NotFound(err) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	x, err := describeNetwork(l, n)
	if err != nil {
		return "", "", err
	}
	six = address6(prefix6Of(x), i.mac)
	if ip, _, ok := ipOf(x); ok && ip.DHCP != nil {
		for _, h := range ip.DHCP.Hosts {
			if strings.EqualFold(h.MAC, i.mac) {
				return h.IP, six, nil
			}
		}
	}
	return "", six, nil
}

// asked tells whether an interface has asked for its address.
func asked(l *libvirt.Libvirt, i nic) (bool, error) {
	n, err := l.NetworkLookupByName(i.network)
	if err != nil {
		return false, err
	}
	got, _, err := l.NetworkGetDhcpLeases(n, libvirt.OptString{i.mac}, 1, 0)
	return len(got) > 0, err
}
