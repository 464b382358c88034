// Package local puts nodes on this machine: each an agent process of its own
// on its own loopback port, with its directory under the definition's
// .clusterplan. What an agent needs of this program is a copy there, so that
// `go run`, which deletes its program, leaves agents that live on.
//
// The node lifecycle is package providers'; this is its Host: files (files.go),
// processes (process.go), ports.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Name is the provider's name in definitions.
const Name = "local"

// ModeProcess runs each node as a process of this user.
const ModeProcess = "process"

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
				{Name: "mode", Type: spec.TypeString, Default: ModeProcess, KnownAtPlan: true, Doc: "process: each node an agent process on its own loopback port; no root needed."},
			},
		},
		Open:      open,
		SameHost:  func(string, string) bool { return true },
		FirstPort: firstPort,
		LastPort:  lastPort,
	}
}

func open(config cty.Value, env providers.Env) (func(string) (providers.Host, error), error) {
	if config != cty.NilVal && !config.IsNull() && config.Type().HasAttribute("mode") {
		if mode := config.GetAttr("mode"); mode.IsKnown() && !mode.IsNull() && mode.AsString() != ModeProcess {
			path := cty.GetAttrPath("mode")
			if mode.AsString() == "netns" {
				return nil, path.NewErrorf("mode = \"netns\" is not in this version, which runs nodes as processes only; write mode = \"process\" or leave it out")
			}
			return nil, path.NewErrorf("%q is no mode; write mode = \"process\" or leave it out", mode.AsString())
		}
	}
	if env.DataDir == "" {
		return nil, errors.New("provider local: no directory to put nodes in")
	}
	h := &host{root: resolve(env.DataDir), orphanWait: orphanWait}
	return func(string) (providers.Host, error) { return h, nil }, nil
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
}

func (h *host) Root() string           { return h.root }
func (h *host) Files() providers.Files { return files{h.root} }

func (h *host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// FreePort binds the port for a moment, with TCP and UDP.
func (h *host) FreePort(ctx context.Context, hostPort string) (bool, error) {
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
