// Package faultlab brings up a cluster in network namespaces, by the real
// program and its command line, breaks it in real ways, and watches it from
// outside: a client in a namespace of its own probes the group's address by ICMP
// and HTTP (prober.go), and every node's addresses are watched for the time in
// which two nodes hold one (watch.go). Benches and end-to-end tests share it.
//
// All times are this process's clock. Nothing here knows what the cluster
// thinks, but through `clusterplan status`.
package faultlab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Group and Address are of the definition's one group; its web server listens at
// port 80 of the address.
const Group = "web"

// Address is the group's.
var Address = netip.MustParseAddr("10.77.0.100")

// Names of the networks of Config.Links.
const (
	Lan   = "lan"
	Spare = "spare"
)

// Config says what cluster to bring up.
type Config struct {
	Program string // clusterplan
	Dir     string // where the definition goes; has to be there
	Nodes   int    // n1 to nN; at most 90
	Voters  int    // the first of them vote; 0: at most 5
	Model   string // of quorum: majority_node_set (default), or single_quorum with a file as its device
	Out     io.Writer
	// Links has the nodes on two networks, both of which carry frames: Lan, where
	// the clients and the group's address are, and Spare.
	Links bool
	// Disks gives every node's data directory a small disk of its own (disk.go).
	Disks bool
	// Heartbeat is the inside of a heartbeat block; "": the defaults.
	Heartbeat string
	// Text is a definition of one's own, of nodes n1 to nN on 10.77.0.0/24; "": the
	// one that all of the above describes.
	Text string
}

// Cluster is a cluster in namespaces.
type Cluster struct {
	Config
	Lab    *netlab.Lab
	Record netlab.Record
}

// Build builds the program from this source tree.
func Build(ctx context.Context, out string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module (run this in its tree): %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./cmd/clusterplan")
	build.Dir = strings.TrimSpace(string(root))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build clusterplan: %w\n%s", err, text)
	}
	// Its 30 MB are on disk before anything is measured: written back later they
	// would hold up the first syncs of the nodes.
	f, err := os.Open(out)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Definition is the cluster's, as text. Groups may fail over and be restarted as
// often as the lab likes.
func (c Config) Definition() string {
	if c.Text != "" {
		return c.Text
	}
	voters := c.Voters
	if voters == 0 {
		voters = min(c.Nodes, 5)
	}
	if c.Model == string(spec.SingleQuorum) {
		voters = c.Nodes // nobody votes, so nobody needs not to
	}
	var b strings.Builder
	b.WriteString("provider \"local\" {\n  mode   = \"netns\"\n  subnet = \"10.77.0.0/24\"\n}\n\ncluster \"faultlab\" {\n")
	if c.Model == string(spec.SingleQuorum) {
		fmt.Fprintf(&b, "  quorum {\n    model  = %q\n    device = %q\n  }\n", c.Model, filepath.Join(c.Dir, "quorum"))
	} else {
		fmt.Fprintf(&b, "  quorum {\n    model = %q\n  }\n", spec.MajorityNodeSet)
	}
	if c.Heartbeat != "" {
		fmt.Fprintf(&b, "\n  heartbeat {\n%s\n  }\n", c.Heartbeat)
	}
	if c.Links {
		fmt.Fprintf(&b, "\n  link %q {\n    subnet = \"10.77.0.0/24\"\n    role   = %q\n  }\n\n  link %q {\n    subnet = \"10.78.0.0/24\"\n  }\n", Lan, spec.LinkAll, Spare)
	}
	b.WriteString("}\n")
	for i := range c.Nodes {
		fmt.Fprintf(&b, "\nnode \"n%d\" {\n  provider = local\n", i+1)
		if i >= voters {
			b.WriteString("  votes    = 0\n")
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, `
group %q {
  failover {
    threshold = 1000000
  }

  resource "ip_address" "vip" {
    address = "%s/24"
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", "%s:80"]
    depends_on = [resource.vip]

    restart {
      threshold = 1000000
    }
  }
}
`, Group, Address, Address)
	return b.String()
}

// Up writes the definition and applies it.
func Up(ctx context.Context, conf Config) (*Cluster, error) {
	if conf.Out == nil {
		conf.Out = io.Discard
	}
	dir, err := filepath.EvalSymlinks(conf.Dir)
	if err != nil {
		return nil, err
	}
	conf.Dir = dir
	c := &Cluster{Config: conf, Lab: netlab.At(filepath.Join(dir, ".clusterplan"))}
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(conf.Definition()), 0o644); err != nil {
		return nil, err
	}
	if conf.Disks {
		if err := c.mountDisks(ctx); err != nil {
			return nil, errors.Join(err, c.unmountDisks())
		}
	}
	if err := c.Apply(ctx); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	if c.Record, err = c.Lab.Record(); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	return c, nil
}

// Down destroys the cluster; what was stopped goes on first.
func (c *Cluster) Down() error {
	for _, s := range c.Record.Seats {
		_, _ = netlab.Signal(s.Namespace, syscall.SIGCONT) // a namespace may be gone
	}
	return errors.Join(c.unmountDisks(), c.Run(context.Background(), "destroy", "--auto-approve", c.Dir))
}

// Run runs the program; the error has what it printed.
func (c *Cluster) Run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, c.Program, args...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(c.Out, &text), io.MultiWriter(c.Out, &text)
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("clusterplan %s: %w\n%s", strings.Join(args, " "), err, text.Bytes())
	}
	return nil
}

// Apply brings the cluster to its definition, from whatever a fault has left.
func (c *Cluster) Apply(ctx context.Context) error {
	return c.Run(ctx, "apply", "--auto-approve", c.Dir)
}

// Move moves the group, if it is not there already, and waits until it is.
func (c *Cluster) Move(ctx context.Context, node string) error {
	s, err := c.Settled(ctx)
	if err != nil || s.Groups[0].Owner == node {
		return err
	}
	if err := c.Run(ctx, "move", Group, node, "--dir", c.Dir); err != nil {
		// A lab's nodes are lost all the time: it may be in quarantine.
		if rerr := c.Run(ctx, "resume", node, "--dir", c.Dir); rerr != nil {
			return errors.Join(err, rerr)
		}
		if err := c.Run(ctx, "move", Group, node, "--dir", c.Dir); err != nil {
			return err
		}
	}
	_, err = c.Until(ctx, node+" owns the group", func(s client.Status) bool { return settled(s) && s.Groups[0].Owner == node })
	return err
}

// Status asks the cluster.
func (c *Cluster) Status(ctx context.Context) (s client.Status, err error) {
	out, err := exec.CommandContext(ctx, c.Program, "status", "--json", c.Dir).Output()
	if jerr := json.Unmarshal(out, &s); jerr != nil {
		return s, errors.Join(fmt.Errorf("read status: %w", jerr), err)
	}
	return s, nil
}

const (
	settleLimit = 60 * time.Second
	statusPoll  = 100 * time.Millisecond
)

// Until asks for the status until it is as wanted.
func (c *Cluster) Until(ctx context.Context, what string, ok func(client.Status) bool) (s client.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	tick := time.NewTicker(statusPoll)
	defer tick.Stop()
	for {
		now, serr := c.Status(ctx)
		if err = serr; err == nil {
			if s = now; ok(s) {
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			text, _ := json.Marshal(s)
			return s, fmt.Errorf("not within %s: %s; last: %s: %w", settleLimit, what, text, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// settled tells whether all nodes are up with their processes and the group is
// online.
func settled(s client.Status) bool {
	if !s.Quorum.Have || s.Leader == "" || len(s.Groups) != 1 || s.Groups[0].State != "online" || s.Groups[0].Owner == "" {
		return false
	}
	for _, n := range s.Nodes {
		if n.State != "up" || n.PID == 0 || n.MonitorPID == 0 {
			return false
		}
	}
	return true
}

// Settled waits until every node is up with its processes and the group is
// online.
func (c *Cluster) Settled(ctx context.Context) (client.Status, error) {
	return c.Until(ctx, "all is well", settled)
}

// Namespace of a node, or of the client.
func (c *Cluster) Namespace(node string) string { return c.Record.Seats[node].Namespace }

// Names are the nodes' names, in order.
func (c *Cluster) Names() []string {
	names := make([]string, c.Nodes)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	return names
}

// Node finds a node of a status.
func Node(s client.Status, name string) client.StatusNode {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return client.StatusNode{}
}

// Events are those that the cluster has told of since it told one (by id).
func (c *Cluster) Events(ctx context.Context, since uint64) (all []client.Event, err error) {
	out, err := exec.CommandContext(ctx, c.Program, "events", "--json", c.Dir).Output()
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	for lines := json.NewDecoder(bytes.NewReader(out)); lines.More(); {
		var e client.Event
		if err := lines.Decode(&e); err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		if e.ID > since {
			all = append(all, e)
		}
	}
	return all, nil
}

// Isolated are the faults of a node whose link is cut: all of it, or what it
// sends, or what it gets.
func Isolated(node, side string) netlab.Fault {
	switch side {
	case "out":
		return netlab.Fault{Kind: netlab.FaultCut, From: node}
	case "in":
		return netlab.Fault{Kind: netlab.FaultCut, To: node}
	}
	return netlab.Fault{Kind: netlab.FaultIsolate, From: node}
}

// Keep copies what the nodes and the cluster said to a directory, for whoever
// looks into a failure after the cluster is gone.
func Keep(c *Cluster, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, node := range c.Names() {
		logs, _ := filepath.Glob(filepath.Join(c.Dir, ".clusterplan", "nodes", node, "log", "agent.log*"))
		for _, log := range logs {
			data, err := os.ReadFile(log)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, node+"."+filepath.Base(log)), data, 0o644)
			}
			errs = append(errs, err)
		}
	}
	for name, args := range map[string][]string{"events": {"events", c.Dir}, "status": {"status", c.Dir}, "lab": {"lab", "status", c.Dir}} {
		out, _ := exec.Command(c.Program, args...).CombinedOutput() // what it says is what there is
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), out, 0o644))
	}
	return errors.Join(errs...)
}
