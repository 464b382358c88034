package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/providers"
)

// netnsPort is where agents in namespaces listen: each has all ports of its own.
const netnsPort = 7400

// Smallest networks: two nodes, an address for a group and the client's.
const (
	longest4 = 29
	longest6 = 124
)

// netns is what a provider's block with mode = "netns" says of its hosts.
func (h *host) netns(hosts providers.Hosts, config cty.Value, env providers.Env) (providers.Hosts, error) {
	if err := netlab.Allowed(); err != nil {
		return hosts, cty.GetAttrPath("mode").NewErrorf("mode = \"netns\": %w", err)
	}
	if text(config, "subnet") == "" {
		return hosts, cty.GetAttrPath("subnet").NewErrorf("mode = \"netns\" needs a network for its nodes; write subnet = \"10.77.0.0/24\", or another one that none of your own machines is in")
	}
	hosts.Place = map[string]string{"mode": ModeNetns}
	for _, name := range []string{"subnet", "subnet6"} {
		given := text(config, name)
		if given == "" {
			continue
		}
		p, err := netip.ParsePrefix(given)
		wrong := func(format string, args ...any) (providers.Hosts, error) {
			return hosts, cty.GetAttrPath(name).NewErrorf("%q %s", given, fmt.Sprintf(format, args...))
		}
		switch {
		case err != nil:
			return wrong("is no network; write one as 10.77.0.0/24 or fd77::/64")
		case name == "subnet6" && !p.Addr().Is6():
			return wrong("is no IPv6 network; write it as fd77::/64, and an IPv4 one as subnet")
		case name == "subnet6" && h.nets[0].Addr().Is6():
			return wrong("is a second IPv6 network; subnet is one already")
		case p.Addr().Is4() && p.Bits() > longest4:
			return wrong("has too few addresses; at least a /%d", longest4)
		case p.Addr().Is6() && p.Bits() > longest6:
			return wrong("has too few addresses; at least a /%d", longest6)
		case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast():
			return wrong("is loopback, multicast or link-local; choose a private network, as 10.77.0.0/24")
		}
		h.nets = append(h.nets, p.Masked())
		hosts.Place[name] = p.Masked().String()
	}
	if err := h.links(env); err != nil {
		return hosts, err
	}
	hosts.FirstPort, hosts.LastPort, hosts.Chooses = netnsPort, netnsPort, true
	hosts.Check, hosts.Examine = h.check, features
	return hosts, nil
}

// links finds what networks the cluster's links are: the one that has the
// provider's subnet in it is that, and each other one a bridge of its own.
func (h *host) links(env providers.Env) error {
	if env.Links == nil {
		return nil // without a definition, what is there stays as it is
	}
	h.linked, h.main = true, netlab.Main
	for _, l := range env.Links {
		p, err := netip.ParsePrefix(l.Subnet)
		if err != nil {
			continue // the definition's own check tells
		}
		wrong := func(format string, args ...any) error {
			return cty.GetAttrPath("subnet").NewErrorf("link %s of the cluster (%s) %s", l.Name, l.Subnet, fmt.Sprintf(format, args...))
		}
		p = p.Masked()
		if slices.ContainsFunc(h.nets, func(own netip.Prefix) bool { return p.Overlaps(own) }) {
			if !slices.ContainsFunc(h.nets, func(own netip.Prefix) bool { return p.Overlaps(own) && p.Bits() <= own.Bits() }) {
				return wrong("has only a part of the provider's subnet in it; give it that whole network, or one of its own")
			}
			if h.main == netlab.Main {
				h.main = l.Name
			}
			continue
		}
		switch {
		case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast():
			return wrong("is loopback, multicast or link-local; in a network lab choose a private network, as 10.78.0.0/24")
		case p.Addr().Is4() && p.Bits() > longest4, p.Addr().Is6() && p.Bits() > longest6:
			return wrong("has too few addresses for a network lab; at least a /%d, with IPv6 a /%d", longest4, longest6)
		}
		h.more = append(h.more, netlab.Network{Name: l.Name, Subnet: p})
	}
	if slices.ContainsFunc(h.more, func(n netlab.Network) bool { return n.Name == h.main }) {
		return cty.GetAttrPath("subnet").NewErrorf("link %q of the cluster is another network than the provider's subnet, which has that name in a network lab; give the link another name, or add one for %s", netlab.Main, h.nets[0])
	}
	return nil
}

// check is about the address that a node's definition gives.
func (h *host) check(name, address string) error {
	if name == netlab.Client {
		return cty.GetAttrPath("name").NewErrorf("in a network lab %q is the namespace that looks at the cluster from outside; give the node another name", netlab.Client)
	}
	if address == "" {
		return nil
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return cty.GetAttrPath("address").NewErrorf("%q is no address; with mode = \"netns\" a node's address is one of %s, or left out", address, h.nets[0])
	}
	if !h.nets[:1].Contains(a) {
		return cty.GetAttrPath("address").NewErrorf("%s is no host's address in %s, the provider's subnet; give one that is, or leave it out", a, h.nets[0])
	}
	return nil
}

// key is a node's seat in the lab: its directory's name.
func key(dir string) string { return path.Base(dir) }

func (h *host) Address(_ context.Context, dir, wanted string, nth int) (string, error) {
	if len(h.nets) == 0 {
		return wanted, nil
	}
	a := netip.Addr{}
	if wanted != "" {
		var err error
		if a, err = netip.ParseAddr(wanted); err != nil {
			return "", cty.GetAttrPath("address").NewError(err)
		}
	}
	s, err := h.lab.Assign(key(dir), h.nets, a, nth)
	if err != nil {
		return "", err
	}
	return s.Address().String(), nil
}

func (h *host) Prepare(ctx context.Context, dir string) error {
	if len(h.nets) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	if h.linked {
		if err := h.lab.Join(key(dir), h.main, h.more); err != nil {
			return err
		}
	}
	return h.lab.Wire(key(dir))
}

func (h *host) Inspect(ctx context.Context, dir string) ([]string, error) {
	if len(h.nets) == 0 || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	words, err := h.lab.Check(key(dir))
	if err == nil && h.linked {
		var lacks []string
		lacks, err = h.lab.Lacks(key(dir), h.more)
		words = append(words, lacks...)
	}
	for i := range words {
		words[i] = providers.HealthNetwork + words[i]
	}
	return words, err
}

func (h *host) Release(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.lab.Unwire(key(dir))
}

// start starts a node's process where the node is.
func (h *host) start(dir string, cmd *exec.Cmd) error {
	r, err := h.lab.Record()
	s, ok := r.Seats[key(dir)]
	if len(h.nets) == 0 || err != nil || !ok {
		if len(h.nets) > 0 {
			return fmt.Errorf("%s has no network namespace: %w", dir, err)
		}
		return cmd.Start()
	}
	return netlab.Start(s.Namespace, cmd)
}

// namespace is that of a host:port; "": no node's in a lab.
func namespace(lab *netlab.Lab, hostPort string) (string, error) {
	at, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return "", nil // a name
	}
	return lab.NamespaceOf(at.Addr())
}

func dial(ctx context.Context, lab *netlab.Lab, network, address string) (net.Conn, error) {
	ns, err := namespace(lab, address)
	if err != nil {
		return nil, err
	}
	if ns == "" {
		d := net.Dialer{}
		return d.DialContext(ctx, network, address)
	}
	return netlab.Dial(ctx, ns, network, address)
}

// Dialer connects to the nodes of a definition's data directory: from inside of
// its own namespace to one that has one, so that a node whose links are cut can
// still be asked.
func Dialer(dataDir string) providers.DialFunc {
	lab := Lab(dataDir)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, lab, network, address)
	}
}

// Lab is the network lab of a definition's data directory.
func Lab(dataDir string) *netlab.Lab { return netlab.At(resolve(dataDir)) }

// Clear takes away what is left under dataDir of nodes that no state tells of,
// once a destroy has left none: an apply that was killed may have begun a node's
// directory and no more, or a network lab's switch. What is a whole node is
// left alone, and the lab with it.
func Clear(dataDir string) error {
	root := resolve(dataDir)
	dir := filepath.Join(root, providers.NodesDir)
	nodes, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, n := range nodes {
		if _, err := os.Stat(filepath.Join(dir, n.Name(), providers.AgentConfigFile)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
			return err
		}
	}
	lab := netlab.At(root)
	r, err := lab.Record()
	if errors.Is(err, netlab.ErrNone) {
		return nil
	}
	for key := range r.Seats {
		err = errors.Join(err, lab.Unwire(key))
	}
	return err
}
