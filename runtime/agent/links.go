package agent

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// linkCheck is how often a node looks whom it hears on which link.
const linkCheck = 500 * time.Millisecond

// links are the cluster's networks as this node has them: the sockets beside the
// node's own address, who is heard on which, and what of it the database is told.
// All but what is marked is the loop's.
type links struct {
	config  uint64                           // the state's ConfigRevision that defs are of
	shared  atomic.Pointer[[]netlink]        // defs, for readers
	many    atomic.Bool                      // there is more than one path: frames come several times
	own     map[string]netip.Addr            // by link
	told    []confdb.NodeLink                // to the member
	checked spec.Instant                     // when
	opened  map[string]spec.Instant          // sockets' age, by link
	tcp     map[string]net.Listener          // by link
	start   chan func(context.Context) error // goroutines for serve
	once    sync.Once
}

// netlink is a link of the definition.
type netlink struct {
	name    string
	subnet  netip.Prefix
	carries bool
}

// heardOn is when each server was heard last, by server id; udp.mu guards it.
type heardOn map[uint64]spec.Instant

func (h *heardOn) note(server uint64) {
	if *h == nil {
		*h = heardOn{}
	}
	(*h)[server] = boottime.Now()
}

func (l *links) init() {
	l.once.Do(func() {
		l.own, l.opened, l.tcp = map[string]netip.Addr{}, map[string]spec.Instant{}, map[string]net.Listener{}
		l.start = make(chan func(context.Context) error, 64)
	})
}

// several tells whether frames come over more than one path. Any goroutine asks.
func (l *links) several() bool { return l.many.Load() }

// of is the name of the link that an address lies on, "": none. Any goroutine asks.
func (l *links) of(at netip.Addr) string {
	if defs := l.shared.Load(); defs != nil {
		for _, d := range *defs {
			if d.carries && d.subnet.Contains(at.Unmap()) {
				return d.name
			}
		}
	}
	return ""
}

// serve runs the readers and listeners of links until ctx ends.
func (l *links) serve(ctx context.Context, n *Node, f *front, api *handOver) error {
	n.give(job{fn: func() { l.init(); n.scanLinks() }})
	l.init()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case fn := <-l.start:
				g.Go(func() error { return fn(context.WithValue(ctx, linkAPI{}, linkServe{f, api})) })
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

type linkAPI struct{}

type linkServe struct {
	f   *front
	api *handOver
}

// followLinks takes the links of a changed definition over.
func (n *Node) followLinks() {
	l, s := &n.links, n.member.State()
	l.init()
	if s.ConfigRevision != l.config {
		l.config = s.ConfigRevision
		var defs []netlink
		for _, d := range s.Cluster.Links {
			if p, err := netip.ParsePrefix(d.Subnet); err == nil {
				defs = append(defs, netlink{d.Name, p, d.Carries()})
			}
		}
		if old := l.shared.Load(); old == nil && len(defs) > 0 || old != nil && !slices.Equal(*old, defs) {
			l.shared.Store(&defs)
			n.scanLinks()
		}
	}
	if len(s.Cluster.Links) > 0 {
		n.peers.reach(n.alternatives())
	}
}

// alternatives are where else each node is.
func (n *Node) alternatives() map[string][]string {
	s := n.member.State()
	out := map[string][]string{}
	if own := s.Nodes[n.facts.NodeID]; own != nil {
		for _, other := range s.Nodes {
			if other == own {
				continue
			}
			if first, also := member.Paths(s.Cluster.Links, own, other); len(also) > 0 {
				out[first] = also
			}
		}
	}
	return out
}

// scanLinks looks for this host's addresses, beside the loop.
func (n *Node) scanLinks() {
	if n.links.shared.Load() == nil {
		return
	}
	scan := n.cfg.Addresses
	if scan == nil {
		scan = interfaceAddresses
	}
	go func() {
		found, err := scan()
		if err != nil {
			n.log.Warn("this host's addresses can't be listed; its links stay as they were", "err", err)
			return
		}
		n.give(job{fn: func() { n.haveAddresses(found) }})
	}()
}

func interfaceAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

// haveAddresses finds the node's address on each link, and listens there.
func (n *Node) haveAddresses(found []netip.Addr) {
	l := &n.links
	service := n.serviceAddresses()
	main := n.udp.main.local.Addr().Unmap()
	slices.SortFunc(found, netip.Addr.Compare)
	had := map[string]bool{}
	for _, d := range *l.shared.Load() {
		at := netip.Addr{}
		for _, a := range found {
			// The node's own address is its address on that link, and one that was
			// found stays; never one that a group brings along.
			if d.subnet.Contains(a) && (a == main || !service[a] && (!at.IsValid() || at != main && a == l.own[d.name])) {
				at = a
			}
		}
		if l.own[d.name] = at; !d.carries || !at.IsValid() || at == main {
			continue
		}
		had[d.name] = true
		if s := n.udp.links[d.name]; s == nil || s.local.Addr().Unmap() != at {
			n.closeLink(d.name)
			n.openLink(d.name, netip.AddrPortFrom(at, n.udp.main.local.Port()))
		}
	}
	for name := range n.udp.links {
		if !had[name] && l.of(n.udp.links[name].local.Addr()) != name { // an address that is gone may come back
			n.closeLink(name)
		}
	}
	n.links.many.Store(len(n.udp.links) > 0)
	n.tellLinks(boottime.Now())
}

// serviceAddresses are those of the groups' resources: they come and go.
func (n *Node) serviceAddresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, g := range n.member.State().Groups {
		for _, r := range g.Spec.Resources {
			text, _ := r.Attributes["address"].(string)
			host, _, _ := strings.Cut(text, "/")
			if a, err := netip.ParseAddr(host); err == nil && r.Type == "ip_address" {
				out[a.Unmap()] = true
			}
		}
	}
	return out
}

func (n *Node) openLink(name string, at netip.AddrPort) {
	s, err := listenUDP(name, at.String())
	if err != nil {
		n.log.Warn("frames can't go over a link", "link", name, "err", listenError("udp", at.String(), err))
		return
	}
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		s.conn.Close()
		n.log.Warn("nothing can come over a link", "link", name, "err", listenError("tcp", at.String(), err))
		return
	}
	n.udp.links[name], n.links.tcp[name], n.links.opened[name] = s, tcp, boottime.Now()
	clear(n.udp.peers) // they are aimed anew
	n.links.start <- func(ctx context.Context) error {
		if err := n.udp.read(ctx, s); err != nil && ctx.Err() == nil {
			n.log.Info("the socket on a link was closed", "link", name, "address", at)
		}
		return nil
	}
	n.links.start <- func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { tcp.Close() })
		defer stop()
		to := ctx.Value(linkAPI{}).(linkServe)
		_ = to.f.accept(ctx, n, tcp, to.api) // ends when the link is closed
		return nil
	}
	n.log.Info("frames go over a link", "link", name, "address", at)
}

func (n *Node) closeLink(name string) {
	s := n.udp.links[name]
	if s == nil {
		return
	}
	go s.conn.Close() // it waits for who reads, who may be waiting for a turn, or have this one
	n.links.tcp[name].Close()
	delete(n.udp.links, name)
	delete(n.links.tcp, name)
	clear(n.udp.peers)
}

// checkLinks looks whom this node hears on which link, now and then.
func (n *Node) checkLinks(now spec.Instant) {
	if n.links.several() && now.Sub(n.links.checked) >= linkCheck {
		n.tellLinks(now)
	}
}

// tellLinks has the member tell the database, when there is something new.
func (n *Node) tellLinks(now spec.Instant) {
	l, s := &n.links, n.member.State()
	l.checked = now
	silence := max(time.Second, 4*s.Cluster.Heartbeat.WithDefaults().Interval.D())
	var list []confdb.NodeLink
	for _, d := range *l.shared.Load() {
		nl := confdb.NodeLink{Link: d.name}
		if at := l.own[d.name]; at.IsValid() {
			nl.Address = at.String()
		}
		if d.carries && nl.Address != "" {
			nl.Lost = n.unheardOn(d, now, silence)
		}
		list = append(list, nl)
	}
	slices.SortFunc(list, func(a, b confdb.NodeLink) int { return strings.Compare(a.Link, b.Link) })
	if !slices.EqualFunc(list, l.told, func(a, b confdb.NodeLink) bool {
		return a.Link == b.Link && a.Address == b.Address && slices.Equal(a.Lost, b.Lost)
	}) {
		l.told = list
		n.carry(now, member.Links{Links: list})
	}
}

// unheardOn are the nodes that are heard, but not on that link.
func (n *Node) unheardOn(d netlink, now spec.Instant, silence time.Duration) []string {
	s := n.member.State()
	on, since := n.udp.links[d.name], n.links.opened[d.name]
	if on == nil {
		on, since = n.udp.main, 0
	}
	var out []string
	n.udp.mu.Lock()
	defer n.udp.mu.Unlock()
	for id, node := range s.Nodes {
		i := slices.IndexFunc(node.Links, func(l confdb.NodeLink) bool { return l.Link == d.name && l.Address != "" })
		if id == n.facts.NodeID || i < 0 {
			continue
		}
		newest := n.udp.main.heard[node.ServerID]
		for _, sock := range n.udp.links {
			newest = max(newest, sock.heard[node.ServerID])
		}
		if newest != 0 && now.Sub(newest) < silence/2 && now.Sub(max(since, on.heard[node.ServerID])) > silence {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
