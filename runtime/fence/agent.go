package fence

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Exit statuses of a fence agent's "status" (ClusterLabs' FenceAgentAPI): 0 is
// on, 2 is off, all else says nothing. Of other actions 0 is success.
const (
	exitOn  = 0
	exitOff = 2
)

// maxOutput of an agent is kept, of each of its two streams.
const maxOutput = 64 << 10

// metadataPatience is how long an agent may take to describe itself.
const metadataPatience = 20 * time.Second

// clusterlabs is an agent of ClusterLabs with what it is told.
type clusterlabs struct {
	file    string
	input   string // key=value lines, without the action
	secrets secrets
}

// agent finds a fence's program and works out what to tell it of a node.
func (r *Runner) agent(f *spec.Fence, node string) (device, error) {
	file, err := r.find(f.Agent)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, name := range sortedNames(f.Parameters) {
		fmt.Fprintf(&b, "%s=%s\n", name, f.Parameters[name])
	}
	_, plug := f.Parameters["plug"]
	_, port := f.Parameters["port"]
	if own, ok := f.Plugs[node]; ok {
		fmt.Fprintf(&b, "plug=%s\n", own)
	} else if !plug && !port {
		// As Pacemaker does: the node's name, under the name that the agent has for it.
		if meta, err := r.describe(file); err == nil {
			for _, name := range []string{"plug", "port"} {
				if meta.takes(name) {
					fmt.Fprintf(&b, "%s=%s\n", name, node)
					break
				}
			}
		}
	}
	return &clusterlabs{file: file, input: b.String(), secrets: newSecrets(f)}, nil
}

// find is the file of an agent, by name or absolute path.
func (r *Runner) find(agent string) (string, error) {
	files := []string{agent}
	if !strings.Contains(agent, "/") {
		files = files[:0]
		for _, dir := range r.cfg.Path {
			files = append(files, filepath.Join(dir, agent))
		}
	}
	for _, file := range files {
		info, err := os.Stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", fmt.Errorf("fence agent %s: %w", agent, err)
		case info.IsDir() || info.Mode()&0o111 == 0:
			return "", fmt.Errorf("fence agent %s is no program that can be run", file)
		}
		return file, nil
	}
	return "", fmt.Errorf("there is no fence agent %s on this node (looked for %s); install it, on Debian with the package fence-agents", agent, strings.Join(files, ", "))
}

func (c *clusterlabs) off(ctx context.Context) error { return c.succeed(ctx, "off") }
func (c *clusterlabs) on(ctx context.Context) error  { return c.succeed(ctx, "on") }

func (c *clusterlabs) succeed(ctx context.Context, action string) error {
	code, out, err := c.call(ctx, action)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s says to %s: exit status %d%s", c.file, action, code, last(out))
	}
	return err
}

func (c *clusterlabs) isOff(ctx context.Context) (bool, error) {
	code, out, err := c.call(ctx, "status")
	switch {
	case err != nil:
		return false, err
	case code == exitOff:
		return true, nil
	case code == exitOn:
		return false, nil
	}
	return false, fmt.Errorf("%s does not know whether the node is off: exit status %d%s", c.file, code, last(out))
}

// call runs the agent once. When ctx ends it is killed, with what it started.
func (c *clusterlabs) call(ctx context.Context, action string) (code int, out string, err error) {
	code, stdout, stderr, err := run(ctx, c.file, "action="+action+"\n"+c.input)
	if err != nil {
		return 0, "", fmt.Errorf("%s, asked to %s: %w%s", c.file, action, err, c.secrets.hide(last(stdout+"\n"+stderr)))
	}
	return code, c.secrets.hide(stdout + "\n" + stderr), nil
}

func run(ctx context.Context, file, input string) (code int, stdout, stderr string, err error) {
	cmd := exec.Command(file)
	cmd.Dir = "/"
	cmd.Env = append(environment(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/")
	cmd.Stdin = strings.NewReader(input)
	var o, e capped
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // something that it left behind may hold its output open
	if err := cmd.Start(); err != nil {
		return 0, "", "", err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-ended: // its number may be another's by now
		default:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	})
	err = cmd.Wait()
	close(ended)
	stop()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && (errors.As(err, &exit) && !exit.Exited() || errors.Is(err, exec.ErrWaitDelay)):
		return 0, o.text(), e.text(), fmt.Errorf("no answer in time: %w", context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), o.text(), e.text(), nil
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return 0, o.text(), e.text(), err
	}
	return cmd.ProcessState.ExitCode(), o.text(), e.text(), nil
}

// environment keeps of ours what marks a node's processes, so that a node that
// is ended takes the agents along that it runs.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return !strings.HasPrefix(kv, nodeMarker+"=") })
}

// capped keeps the end of what is written to it.
type capped struct {
	mu  sync.Mutex
	buf []byte
}

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	if len(c.buf) > maxOutput {
		c.buf = c.buf[len(c.buf)-maxOutput:]
	}
	return len(p), nil
}

func (c *capped) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ToValidUTF8(string(c.buf), "?")
}

// last is the last line of an output, for an error.
func last(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range slices.Backward(lines) {
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, strings.TrimSpace(line))
		if line == "" {
			continue
		}
		if len(line) > 300 {
			line = strings.ToValidUTF8(line[:300], "") + "..."
		}
		return ": " + line
	}
	return ""
}

// secrets are what is never shown of a fence.
type secrets []string

func newSecrets(f *spec.Fence) secrets {
	var out secrets
	for name, value := range f.Parameters {
		if value != "" && f.IsSensitive(name) {
			out = append(out, value)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) }) // one may be part of another
	return out
}

func (s secrets) hide(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, spec.Hidden)
	}
	return text
}

// metadata is what an agent says of itself, as far as it is used.
type metadata struct {
	Parameters []struct {
		Name     string `xml:"name,attr"`
		Required string `xml:"required,attr"`
		Content  struct {
			Default string `xml:"default,attr"`
		} `xml:"content"`
	} `xml:"parameters>parameter"`
	Actions []struct {
		Name string `xml:"name,attr"`
	} `xml:"actions>action"`
}

func (m *metadata) takes(name string) bool {
	for _, p := range m.Parameters {
		if strings.ReplaceAll(p.Name, "-", "_") == strings.ReplaceAll(name, "-", "_") {
			return true
		}
	}
	return false
}

// describe has an agent describe itself, once a Runner.
func (r *Runner) describe(file string) (*metadata, error) {
	r.mu.Lock()
	meta := r.meta[file]
	r.mu.Unlock()
	if meta != nil {
		return meta, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), metadataPatience)
	defer cancel()
	code, stdout, stderr, err := run(ctx, file, "action=metadata\n")
	if err != nil {
		return nil, fmt.Errorf("%s, asked for its metadata: %w", file, err)
	}
	if code != 0 {
		return nil, fmt.Errorf("%s has no metadata: exit status %d%s", file, code, last(stderr))
	}
	meta = new(metadata)
	if err := xml.NewDecoder(bytes.NewReader([]byte(stdout))).Decode(meta); err != nil {
		return nil, fmt.Errorf("%s: its metadata can't be read: %w", file, err)
	}
	r.mu.Lock()
	r.meta[file] = meta
	r.mu.Unlock()
	return meta, nil
}

// Check tells what is wrong with a fence on this node, as far as its agent
// can tell without touching a device: no program, parameters that it doesn't
// take, required ones that are missing, actions that it hasn't.
func (r *Runner) Check(f *spec.Fence) []string {
	switch f.Agent {
	case spec.FenceLocal:
		return nil
	case spec.FenceLibvirt:
		return checkMachines(f, r.cfg.Log)
	}
	file, err := r.find(f.Agent)
	if err != nil {
		return []string{err.Error()}
	}
	meta, err := r.describe(file)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, name := range sortedNames(f.Parameters) {
		if !meta.takes(name) {
			out = append(out, fmt.Sprintf("%s takes no parameter %q", file, name))
		}
	}
	for _, p := range meta.Parameters {
		_, given := f.Parameters[p.Name]
		switch p.Name {
		case "action", "plug", "port":
		default:
			if p.Required == "1" && !given && p.Content.Default == "" {
				out = append(out, fmt.Sprintf("%s needs a parameter %q", file, p.Name))
			}
		}
	}
	has := func(action string) bool {
		for _, a := range meta.Actions {
			if a.Name == action {
				return true
			}
		}
		return len(meta.Actions) == 0
	}
	for _, action := range []string{"off", "status"} {
		if !has(action) {
			out = append(out, fmt.Sprintf("%s has no action %s, so that it can't prove that a node is off", file, action))
		}
	}
	if f.Action == spec.FenceReboot && !has("on") {
		out = append(out, file+" has no action on, so that it can't turn a node on again")
	}
	return out
}

func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
