// Package lab sets up a cluster of its own for the programs that measure: the
// program built from this tree, a copy of the quickstart with another address
// or a definition of theirs in a temporary directory, everything removed at the
// end. It talks to the cluster through the command line alone, as a user does.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Cluster is a running cluster.
type Cluster struct {
	Program string // the built clusterplan
	Dir     string // the definition's directory
	URL     string // where the quickstart's group web answers
	tmp     string
	out     io.Writer
}

// Edit changes the definition's text before it is applied.
type Edit struct{ Old, New string }

const (
	definition  = "examples/quickstart/main.cluster.hcl"
	listen      = "127.77.0.10:8077"
	settleLimit = 60 * time.Second
)

// Up builds the program and applies a copy of the quickstart, with the group's
// service at address (host:port in 127/8; "": one that is free now). What the
// commands print goes to out.
func Up(ctx context.Context, address string, out io.Writer, edits ...Edit) (c *Cluster, err error) {
	if address == "" {
		l, err := net.Listen("tcp", "127.77.9.20:0")
		if err != nil {
			return nil, fmt.Errorf("find a free address: %w", err)
		}
		address = l.Addr().String()
		l.Close()
	}
	tree, err := moduleTree(ctx)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(tree, definition))
	if err != nil {
		return nil, err
	}
	for _, e := range append([]Edit{{listen, address}}, edits...) {
		if !bytes.Contains(text, []byte(e.Old)) {
			return nil, fmt.Errorf("%s has no %q to change", definition, e.Old)
		}
		text = bytes.ReplaceAll(text, []byte(e.Old), []byte(e.New))
	}
	if c, err = UpText(ctx, string(text), out); err != nil {
		return c, err
	}
	url, err := c.command(ctx, "--chdir", c.Dir, "output", "--raw", "url").Output()
	if err != nil {
		return c, errors.Join(fmt.Errorf("clusterplan output: %w", err), c.Down())
	}
	c.URL = strings.TrimSpace(string(url))
	return c, nil
}

// UpText builds the program and applies a definition that is given as text.
func UpText(ctx context.Context, text string, out io.Writer) (c *Cluster, err error) {
	tree, err := moduleTree(ctx)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "clusterplan-bench-")
	if err != nil {
		return nil, err
	}
	c = &Cluster{Program: filepath.Join(tmp, "clusterplan"), Dir: filepath.Join(tmp, "lab"), tmp: tmp, out: out}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Down())
		}
	}()
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", c.Program, "./cmd/clusterplan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // one static file, as nodes get it
	build.Dir, build.Stdout, build.Stderr = tree, out, out
	if err := build.Run(); err != nil {
		return c, fmt.Errorf("build clusterplan: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return c, err
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "main.cluster.hcl"), []byte(text), 0o644); err != nil {
		return c, err
	}
	if err := c.Run(ctx, "init", c.Dir); err != nil {
		return c, err
	}
	return c, c.Apply(ctx)
}

func moduleTree(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module (run this in its tree): %w", err)
	}
	return strings.TrimSpace(string(root)), nil
}

// Events are the cluster's events after one, oldest first.
func (c *Cluster) Events(ctx context.Context, after uint64) (events []client.Event, err error) {
	out, err := c.command(ctx, "events", "--json", c.Dir).Output()
	if err != nil {
		return nil, fmt.Errorf("clusterplan events: %w", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var e client.Event
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("read events: %w", err)
		case e.ID > after:
			events = append(events, e)
		}
	}
}

// Down destroys the cluster and removes its files; twice is fine.
func (c *Cluster) Down() error {
	var err error
	if _, serr := os.Stat(filepath.Join(c.Dir, ".clusterplan")); serr == nil {
		err = c.Run(context.Background(), "destroy", "--auto-approve", c.Dir)
		if err != nil {
			return fmt.Errorf("%w; its files are kept in %s", err, c.tmp)
		}
	}
	return errors.Join(err, os.RemoveAll(c.tmp))
}

func (c *Cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Program, args...)
	cmd.Stderr = c.out
	return cmd
}

// Run runs clusterplan.
func (c *Cluster) Run(ctx context.Context, args ...string) error {
	cmd := c.command(ctx, args...)
	cmd.Stdout = c.out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("clusterplan %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Apply brings the cluster to its definition, from whatever a run has left.
func (c *Cluster) Apply(ctx context.Context) error {
	return c.Run(ctx, "apply", "--auto-approve", c.Dir)
}

// Status asks the cluster.
func (c *Cluster) Status(ctx context.Context) (s client.Status, err error) {
	out, err := c.command(ctx, "status", "--json", c.Dir).Output()
	if jerr := json.Unmarshal(out, &s); jerr != nil {
		return s, errors.Join(fmt.Errorf("read status: %w", jerr), err)
	}
	return s, nil
}

// Settled waits until every node is up with its processes, and every group is
// online, and was with the same owner for calm.
func (c *Cluster) Settled(ctx context.Context, calm time.Duration) (s client.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var since time.Time
	var was string
	for {
		s, err = c.Status(ctx)
		now := ""
		if err == nil {
			now = settledAs(s)
		}
		if now == "" || now != was {
			was, since = now, time.Now()
		}
		if now != "" && time.Since(since) >= calm {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("the cluster did not settle within %s: %+v: %w", settleLimit, s, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settledAs is who owns what, or "" while something is not as it should be.
func settledAs(s client.Status) string {
	var b strings.Builder
	if !s.Quorum.Have || s.Leader == "" {
		return ""
	}
	for _, n := range s.Nodes {
		if n.State != "up" || n.PID == 0 || n.MonitorPID == 0 {
			return ""
		}
	}
	for _, g := range s.Groups {
		if g.State != "online" || g.Owner == "" {
			return ""
		}
		fmt.Fprintf(&b, "%s=%s/%d ", g.Name, g.Owner, g.Epoch)
	}
	return b.String()
}

// Node finds a node of a status by name.
func Node(s client.Status, name string) (client.StatusNode, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return client.StatusNode{}, false
}

// Owner is the name of a group's owner.
func Owner(s client.Status, group string) string {
	for _, g := range s.Groups {
		if g.Name == group {
			return g.Owner
		}
	}
	return ""
}
