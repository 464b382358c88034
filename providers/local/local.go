// Package local puts nodes on this machine: each an agent process of its own
// with its directory under the definition's .clusterplan. What an agent needs of
// this program is a copy there, so that `go run`, which deletes its program,
// leaves agents that live on.
//
// With mode = "process" the agents share this machine's loopback network, each
// with a port. With mode = "netns" each is in a network namespace of its own,
// with an address on a bridge (netns.go): nodes whose links can be cut, and
// whose addresses really move.
//
// The node lifecycle is package providers'; this is its Host: files (files.go),
// processes (process.go), ports and namespaces. What is there decides how a node
// is reached and taken away, not what the definition wants by now: a node of a
// namespace is found there though the mode has changed.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Name is the provider's name in definitions.
const Name = "local"

// Modes of the provider.
const (
	ModeProcess = "process" // each node a process of this user
	ModeNetns   = "netns"   // each node in a network namespace; root
)

// Ports for nodes without one of their own: below the range that Linux gives
// to outgoing connections (32768 on), above what servers commonly use.
const (
	firstPort = 21000
	lastPort  = 29999
)

// New is the provider; it needs Configure before use.
func New() *providers.Nodes { return providers.NewNodes(nodesConfig()) }

func nodesConfig() providers.NodesConfig {
	return providers.NodesConfig{
		Name: Name,
		Config: spec.Schema{
			Name: Name,
			Doc:  "Nodes on this machine.",
			Attributes: []spec.Attribute{
				{Name: "mode", Type: spec.TypeString, Default: ModeProcess, Values: []string{ModeProcess, ModeNetns}, KnownAtPlan: true,
					Doc: "process: each node an agent process on its own loopback port; no root needed. netns: each node in a network namespace of its own with an address of subnet, on a bridge, and a client namespace beside them; root."},
				{Name: "subnet", Type: spec.TypeString, KnownAtPlan: true, Doc: "netns: the nodes' network, as 10.77.0.0/24. It exists between the namespaces only. Nodes without an address get one of it."},
				{Name: "subnet6", Type: spec.TypeString, KnownAtPlan: true, Doc: "netns: an IPv6 network beside it, as fd77::/64."},
			},
		},
		Open:      open,
		SameHost:  func(_, _ spec.Node) bool { return true },
		FirstPort: firstPort,
		LastPort:  lastPort,
	}
}

func open(config cty.Value, env providers.Env) (providers.Hosts, error) {
	mode := text(config, "mode")
	if mode != "" && mode != ModeProcess && mode != ModeNetns {
		return providers.Hosts{}, cty.GetAttrPath("mode").NewErrorf("%q is no mode; write mode = \"process\" or mode = \"netns\"", mode)
	}
	if env.DataDir == "" {
		return providers.Hosts{}, errors.New("provider local: no directory to put nodes in")
	}
	root := resolve(env.DataDir)
	h := &host{root: root, orphanWait: orphanWait, lab: netlab.At(root)}
	hosts := providers.Hosts{Host: func(spec.Node) (providers.Host, error) { return h, nil }}
	hosts.Apart = func(place map[string]string) error {
		was, now := cmp.Or(place["mode"], ModeProcess), cmp.Or(mode, ModeProcess)
		if was == now {
			return nil
		}
		return cty.GetAttrPath("provider").NewErrorf("the provider's mode is %q now and was %q when this node was made; nodes of the two can't reach each other, so that a cluster can't go over node by node: clusterplan destroy, then apply; or put mode = %q back", now, was, was)
	}
	if mode == ModeNetns {
		return h.netns(hosts, config, env)
	}
	for _, name := range []string{"subnet", "subnet6"} {
		if text(config, name) != "" {
			return hosts, cty.GetAttrPath(name).NewErrorf("%s is for mode = \"netns\"; as processes, nodes share this machine's network", name)
		}
	}
	return hosts, nil
}

// text is a string of the provider's block; "": none.
func text(config cty.Value, name string) string {
	if config == cty.NilVal || config.IsNull() || !config.Type().HasAttribute(name) {
		return ""
	}
	if v := config.GetAttr(name); v.IsKnown() && !v.IsNull() {
		return v.AsString()
	}
	return ""
}

// resolve is dir without symbolic links: processes are found by it, whatever
// way the definition was reached.
func resolve(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		return filepath.Join(parent, filepath.Base(dir))
	}
	return dir
}

// host is this machine, under one definition's .clusterplan.
type host struct {
	root       string
	orphanWait time.Duration
	lab        *netlab.Lab
	nets       netlab.Networks // what mode = "netns" wants; none: mode = "process"
	linked     bool            // there is a definition, whose links say:
	main       string          // what the network nets is called
	more       []netlab.Network
	mu         sync.Mutex
}

func (h *host) Mutex() sync.Locker                   { return &h.mu }
func (h *host) Arch(context.Context) (string, error) { return "", nil }

func (h *host) Root() string           { return h.root }
func (h *host) Files() providers.Files { return files{h.root} }

func (h *host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, h.lab, network, address)
}

// FreePort binds the port for a moment, with TCP and UDP.
func (h *host) FreePort(ctx context.Context, hostPort string) (free bool, err error) {
	ns, err := namespace(h.lab, hostPort)
	if err != nil || ns == "" {
		if err == nil {
			free, err = bindable(ctx, hostPort)
		}
		return free, err
	}
	err = netlab.Do(ns, func() error {
		free, err = bindable(ctx, hostPort)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return true, nil // the namespace or its address is not made yet: nobody can be there
	}
	return free, err
}

func bindable(ctx context.Context, hostPort string) (bool, error) {
	var lc net.ListenConfig
	t, err := lc.Listen(ctx, "tcp", hostPort)
	if err != nil {
		return false, portError(hostPort, err)
	}
	defer t.Close()
	u, err := lc.ListenPacket(ctx, "udp", hostPort)
	if err != nil {
		return false, portError(hostPort, err)
	}
	return true, u.Close()
}

// portError is nil where someone else has the port.
func portError(hostPort string, err error) error {
	if errors.Is(err, errInUse) {
		return nil
	}
	return fmt.Errorf("%s can't be listened on: %w; the address of a local node is one of this machine's, as 127.0.0.1", hostPort, err)
}
