package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
)

// A lab may have networks beside the one that every seat is on: each is a bridge
// of its own in the switch's namespace (br1, br2, ...) and, in each seat that
// joins it, an interface (eth1, eth2, ...) with an address. Nothing leads from
// one network to another.

// Main is the name of the network that every seat is on, unless it has one.
const Main = "main"

// LinkOf begins what Check says of a link to a network other than the main one.
const LinkOf = "link of "

// Network is one more network of a lab.
type Network struct {
	Name   string       `json:"name"`
	Subnet netip.Prefix `json:"subnet"`
	Number int          `json:"number"` // of bridge and interfaces, from 1
}

// Wire is a seat's link to a network.
type Wire struct {
	Network   string         `json:"network"` // "": the main one
	Number    int            `json:"number"`
	Port      string         `json:"port"`
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
}

func (w Wire) device() string { return numbered("eth", w.Number) }
func (w Wire) bridge() string { return numbered("br", w.Number) }

func numbered(name string, n int) string { return name + strconv.Itoa(n) }

// wires are all of a seat's links, the one to the main network first.
func (s Seat) wires() []Wire {
	return append([]Wire{{Port: s.Port, MAC: s.MAC, Addresses: s.Addresses}}, s.More...)
}

// AllAddresses are the seat's, on all networks, the main one's first.
func (s Seat) AllAddresses() []netip.Prefix {
	var out []netip.Prefix
	for _, w := range s.wires() {
		out = append(out, w.Addresses...)
	}
	return out
}

// mainName is the main network's.
func (r Record) mainName() string {
	if r.Main == "" {
		return Main
	}
	return r.Main
}

func (r Record) nameOf(w Wire) string {
	if w.Network == "" {
		return r.mainName()
	}
	return w.Network
}

// Networks are the names of the lab's networks, the main one first.
func (r Record) Networks() []string {
	out := []string{r.mainName()}
	for _, n := range r.More {
		out = append(out, n.Name)
	}
	return out
}

// wire is a seat's link to a network.
func (r Record) wire(key, network string) (Wire, bool) {
	for _, w := range r.Seats[key].wires() {
		if r.nameOf(w) == network {
			return w, true
		}
	}
	return Wire{}, false
}

// Join puts a seat that was assigned on these networks beside the main one,
// which is called main, and off all others; the client is on all that there are.
// Where it can, a seat has the same place in each: who is the third host of the
// main network is the third of every other. What is to be made Wire makes; what
// is not wanted any more is gone when Join returns. Networks is what it wants:
// names and subnets, none of which may overlap.
func (l *Lab) Join(key, main string, want []Network) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.Record()
	if err != nil {
		return err
	}
	s, ok := r.Seats[key]
	if !ok {
		return fmt.Errorf("%s has no seat in the network lab of %s", key, l.dir)
	}
	want, r.Main = slices.Clone(want), main
	for i, n := range want {
		had := slices.IndexFunc(r.More, func(o Network) bool { return o.Name == n.Name })
		switch {
		case had < 0:
			n.Number = 1
			for slices.ContainsFunc(r.More, func(o Network) bool { return o.Number == n.Number }) {
				n.Number++
			}
			r.More = append(r.More, n)
		default:
			r.More[had].Subnet = n.Subnet
			n = r.More[had]
		}
		want[i] = n
	}
	var dropped []Wire
	had := s.More
	s.More = nil
	for _, w := range had {
		i := slices.IndexFunc(want, func(n Network) bool { return n.Name == w.Network })
		if i < 0 {
			dropped = append(dropped, w)
		}
	}
	r.Seats[key] = s
	c := r.Seats[Client]
	for _, n := range want {
		w, err := l.wireTo(r, key, had, n)
		if err != nil {
			return err
		}
		s.More = append(s.More, w)
		r.Seats[key] = s
		i := slices.IndexFunc(c.More, func(w Wire) bool { return w.Network == n.Name })
		if i >= 0 && c.More[i].Addresses[0].Masked() == n.Subnet {
			continue
		}
		a, err := clientAddress(r, n.Subnet)
		if err != nil {
			return err
		}
		w = l.newWire(Client, n, a)
		if i >= 0 {
			c.More[i] = w
		} else {
			c.More = append(c.More, w)
		}
		r.Seats[Client] = c
	}
	// A network that no node is on any more goes.
	var left, gone []Network
	for _, n := range r.More {
		used := false
		for k := range r.Seats {
			_, on := r.wire(k, n.Name)
			used = used || on && k != Client
		}
		if used {
			left = append(left, n)
			continue
		}
		gone = append(gone, n)
		c.More = slices.DeleteFunc(slices.Clone(c.More), func(w Wire) bool {
			if w.Network == n.Name {
				dropped = append(dropped, w)
				return true
			}
			return false
		})
	}
	r.More, r.Seats[Client] = left, c
	// Taken away first: the record tells of all that there is.
	if exists(r.Switch) && len(dropped)+len(gone) > 0 {
		if err := Do(r.Switch, func() error {
			var errs []error
			for _, w := range dropped {
				errs = append(errs, drop(w.Port))
			}
			for _, n := range gone {
				errs = append(errs, drop(numbered("br", n.Number)))
			}
			return errors.Join(errs...)
		}); err != nil {
			return err
		}
	}
	return l.write(r)
}

// wireTo is a seat's link to a network: what it had, as long as that is in the
// subnet, else a new one.
func (l *Lab) wireTo(r Record, key string, had []Wire, n Network) (Wire, error) {
	for _, w := range had {
		if w.Network == n.Name && len(w.Addresses) == 1 && w.Addresses[0].Masked() == n.Subnet {
			return w, nil
		}
	}
	a, err := pick(r, key, n.Subnet, netip.Addr{}, ordinal(r.Seats[key]))
	if err != nil {
		a, err = pick(r, key, n.Subnet, netip.Addr{}, 0)
	}
	return l.newWire(key, n, a), err
}

func (l *Lab) newWire(key string, n Network, a netip.Addr) Wire {
	name := l.seat(key).Namespace + "\x00" + n.Name
	return Wire{Network: n.Name, Number: n.Number, Port: portOf(key + "+" + strconv.Itoa(n.Number)), MAC: macOf(name),
		Addresses: []netip.Prefix{netip.PrefixFrom(a, n.Subnet.Bits())}}
}

// ordinal is which host of the main network a seat is, from 0.
func ordinal(s Seat) int {
	if len(s.Addresses) == 0 {
		return 0
	}
	a, base, n := s.Address().AsSlice(), s.Addresses[0].Masked().Addr().AsSlice(), 0
	for i := max(0, len(a)-3); i < len(a); i++ {
		n = n<<8 + int(a[i]) - int(base[i])
	}
	return max(n-1, 0)
}

// Lacks says which networks a seat has yet to join, and which to leave, in the
// words of Check.
func (l *Lab) Lacks(key string, want []Network) ([]string, error) {
	r, err := l.there()
	if err != nil {
		return nil, err
	}
	var out []string
	s := r.Seats[key]
	for _, n := range want {
		i := slices.IndexFunc(s.More, func(w Wire) bool { return w.Network == n.Name })
		switch {
		case i < 0:
			out = append(out, LinkOf+n.Name+": not there")
		case s.More[i].Addresses[0].Masked() != n.Subnet:
			out = append(out, LinkOf+n.Name+": not in "+n.Subnet.String())
		}
	}
	for _, w := range s.More {
		if !slices.ContainsFunc(want, func(n Network) bool { return n.Name == w.Network }) {
			out = append(out, LinkOf+w.Network+": not in the definition")
		}
	}
	return out, nil
}

// bridges makes those of the other networks that are missing, from inside of the
// switch.
func bridges(r Record) error {
	for _, n := range r.More {
		name := numbered("br", n.Number)
		_, err := netlink.LinkByName(name)
		var notFound netlink.LinkNotFoundError
		if errors.As(err, &notFound) {
			err = makeBridge(name)
		}
		if err != nil {
			return explain("make a bridge", err)
		}
	}
	return nil
}
