// Package e2e tests the program that users get, with real processes: each
// test copies the quickstart's definition to a directory of its own, applies
// it with the built binary, breaks something, and looks at what users would
// see. Nothing here calls into the code, but for reading what it wrote.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// program is the binary under test.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if program = os.Getenv(programEnv); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "clusterplan-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "clusterplan")
	// As a release is built: static, without symbols.
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "../cmd/clusterplan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build clusterplan:", err)
		return 1
	}
	os.Setenv(programEnv, program)
	return m.Run()
}

// programEnv names the program to a test that runs once more, in namespaces.
const programEnv = "CLUSTERPLAN_E2E_PROGRAM"

// long bounds every wait: far more than anything takes on a quiet machine.
const long = 60 * time.Second

// lab is one definition with its cluster.
type lab struct {
	t         *testing.T
	dir       string // of the definition
	address   string // host:port of the group web
	device    string // where a quorum device may lie
	program   string
	namespace string            // of the network, where commands run; "": this process's
	stdin     io.Reader         // of what is begun; nil: none
	before    map[string]string // files with their content, as this test left them
	env       []string          // of the program, beside this process's own
	keys      statefile.Keys    // of an encrypted state
	bound     time.Duration     // of a command, and of what is waited for; 0: 3 minutes, and long
}

// newLab copies the quickstart, with an address of its own.
func newLab(t *testing.T) *lab {
	t.Helper()
	return copyExample(t, "quickstart")
}

func copyExample(t *testing.T, example string) *lab {
	t.Helper()
	t.Parallel()
	// Without symbolic links, as processes' directories are told.
	tmp, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: filepath.Join(tmp, example), address: ownAddress(t), device: filepath.Join(t.TempDir(), "quorum"), program: program}
	// Its files alone, and its modules': someone may be trying the example in its
	// directory. An environment lies beside others.
	top, _, _ := strings.Cut(example, "/")
	from := filepath.Join("..", "examples")
	if err := filepath.WalkDir(filepath.Join(from, top), func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, file)
		switch {
		case err != nil:
			return err
		case d.Name() == ".clusterplan":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(tmp, rel), 0o755)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, rel), data, 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	l.before = l.files()
	t.Cleanup(l.end)
	return l
}

// ownAddress is an address in 127/8 of this test alone.
func ownAddress(t *testing.T) string {
	h := fnv.New32a()
	fmt.Fprint(h, t.Name(), os.Getpid())
	n := h.Sum32()
	return fmt.Sprintf("127.%d.%d.%d:8077", 100+n%100, n>>8%250+1, n>>16%250+1)
}

// end makes sure that a test that failed half way leaves no process, and tells
// what the agents said.
func (l *lab) end() {
	if l.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(l.dir, ".clusterplan", "nodes", "*", "log", "agent.log"))
		for _, log := range logs {
			data, _ := os.ReadFile(log)
			l.t.Logf("%s:\n%s", log, data[max(0, len(data)-3000):])
		}
	}
	l.t.Cleanup(l.endNamespaces)
	for range 50 {
		all := l.processes()
		if len(all) == 0 {
			return
		}
		for _, p := range all {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// result is what a command did.
type result struct {
	args   []string
	code   int
	out    string
	stderr string
}

func (r result) String() string {
	return fmt.Sprintf("clusterplan %s: exit %d\n%s%s", strings.Join(r.args, " "), r.code, r.out, r.stderr)
}

// screen keeps what a program prints, and can be read while it goes on.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// command is the program with arguments, in the definition's directory.
func (l *lab) command(ctx context.Context, args ...string) (*exec.Cmd, *screen, *screen) {
	cmd := exec.CommandContext(ctx, l.program, args...)
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "CLUSTERPLAN_VAR_address="+l.address, "CLUSTERPLAN_VAR_device="+l.device)
	cmd.Env = append(cmd.Env, l.env...)
	var out, stderr screen
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.WaitDelay = 5 * time.Second // agents must not keep the pipes
	return cmd, &out, &stderr
}

// run runs the program to its end. What it prints as JSON has to fit its schema.
func (l *lab) run(args ...string) result {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), cmp.Or(l.bound, 3*time.Minute))
	defer cancel()
	cmd, out, stderr := l.command(ctx, args...)
	start := cmd.Start
	if l.namespace != "" {
		start = func() error { return netlab.Start(l.namespace, cmd) }
	}
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	r := result{args: args, code: cmd.ProcessState.ExitCode(), out: out.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatalf("%v\n%s", err, r)
	}
	if err := jsonschematest.Output(args, []byte(r.out)); err != nil {
		l.t.Error(err)
	}
	return r
}

// must is run with a wanted exit code.
func (l *lab) must(code int, args ...string) result {
	l.t.Helper()
	r := l.run(args...)
	if r.code != code {
		l.t.Fatalf("want exit %d: %s", code, r)
	}
	return r
}

func (l *lab) apply() result {
	l.t.Helper()
	return l.must(0, "apply", "--auto-approve")
}

// settled wants a plan with nothing to do.
func (l *lab) settled() {
	l.t.Helper()
	if r := l.run("plan", "--detailed-exitcode"); r.code != 0 {
		l.t.Fatalf("a second plan has something to do: %s", r)
	}
}

func (r result) wants(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.out+r.stderr, w) {
			t.Errorf("it does not say %q: %s", w, r)
		}
	}
}

// patient gives the example's cluster longer leases, for a test in which no group is to
// move by itself: a machine that stands still for a moment ends short ones.
func (l *lab) patient() {
	l.t.Helper()
	head := "cluster \"" + filepath.Base(l.dir) + "\" {\n"
	l.edit(head, head+"  heartbeat {\n    profile  = \"custom\"\n    interval = \"200ms\"\n  }\n\n")
}

// edit replaces text in the definition.
func (l *lab) edit(old, new string) {
	l.t.Helper()
	file := filepath.Join(l.dir, "main.cluster.hcl")
	data, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	if strings.Count(string(data), old) != 1 {
		l.t.Fatalf("the definition has %q %d times", old, strings.Count(string(data), old))
	}
	text := strings.Replace(string(data), old, new, 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.before[file] = text
}

// status is `status --json`, which has to be what the format says.
func (l *lab) status() client.Status {
	l.t.Helper()
	r := l.run("status", "--json")
	var st client.Status
	dec := json.NewDecoder(strings.NewReader(r.out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&st); err != nil {
		l.t.Fatalf("status --json: %v: %s", err, r)
	}
	return st
}

func (l *lab) node(name string) client.StatusNode {
	l.t.Helper()
	st := l.status()
	for _, n := range st.Nodes {
		if n.Name == name {
			return n
		}
	}
	l.t.Fatalf("status has no node %s: %+v", name, st)
	return client.StatusNode{}
}

// until polls until ok, or fails with what it last said. What costs more is asked less
// often: questions that are commands would keep the clusters from their processor.
func (l *lab) until(what string, ok func() (bool, string)) {
	l.t.Helper()
	bound := cmp.Or(l.bound, long)
	deadline := time.Now().Add(bound)
	for {
		asked := time.Now()
		yes, last := ok()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %s: %s; last: %s", bound, what, last)
		}
		time.Sleep(max(20*time.Millisecond, min(3*time.Since(asked), 250*time.Millisecond)))
	}
}

var web = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// answer is the node that answers at the group's address, or why none does.
func (l *lab) answer() (node string, err error) {
	res, err := web.Get("http://" + l.address + "/")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return strings.TrimSpace(string(body)), err
}

// served waits until the group's address is answered, from a node that is (or
// with a !, is not) one of these.
func (l *lab) served(nodes ...string) string {
	l.t.Helper()
	var from string
	l.until(fmt.Sprintf("an answer from %v", nodes), func() (bool, string) {
		var err error
		if from, err = l.answer(); err != nil {
			return false, err.Error()
		}
		for _, n := range nodes {
			if not, ok := strings.CutPrefix(n, "!"); ok && from == not {
				return false, from
			}
		}
		return strings.HasPrefix(nodes[0], "!") || slices.Contains(nodes, from), from
	})
	return from
}

// process is a process of this lab.
type process struct {
	pid  int
	args string
}

// processes are those whose command line or environment names the lab's
// directory: agents, monitors, guardians, resources; not the commands that are
// run from here.
func (l *lab) processes() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		l.t.Fatal(err)
	}
	mark := []byte(filepath.Join(l.dir, ".clusterplan") + "/")
	tokens := bytes.Join(l.records(), nil)
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		environ, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		ours := bytes.Contains(environ, mark) || bytes.Contains(cmdline, mark)
		for _, kv := range bytes.Split(environ, []byte{0}) {
			token, ok := bytes.CutPrefix(kv, []byte("CLUSTERPLAN_MONITOR="))
			ours = ours || (ok && bytes.Contains(tokens, token))
		}
		if ours {
			out = append(out, process{pid, strings.ReplaceAll(string(cmdline), "\x00", " ")})
		}
	}
	return out
}

// records are what nodes' monitors have noted of all that they started.
func (l *lab) records() (all [][]byte) {
	files, _ := filepath.Glob(filepath.Join(l.dir, ".clusterplan", "nodes", "*", "run", "*.json"))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		all = append(all, data)
	}
	return all
}

// cgroups are the monitors' ones.
func (l *lab) cgroups() (all []string) {
	for _, record := range l.records() {
		dirs, err := cgroup.Recorded(record)
		if err != nil {
			l.t.Error(err)
		}
		all = append(all, dirs...)
	}
	return all
}

// of are a node's processes among them.
func (l *lab) of(node string) []process {
	mark := "/nodes/" + node + "/"
	return slices.DeleteFunc(l.processes(), func(p process) bool {
		environ, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		return !strings.Contains(string(environ)+p.args, mark) && !strings.Contains(string(environ), "CLUSTERPLAN_NODE="+node+"\x00")
	})
}

// kill sends SIGKILL to a node's agent and monitor.
func (l *lab) kill(node string) {
	l.t.Helper()
	n := l.node(node)
	if n.PID == 0 || n.MonitorPID == 0 {
		l.t.Fatalf("status does not tell the processes of %s: %+v", node, n)
	}
	for _, pid := range []int{n.PID, n.MonitorPID} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			l.t.Fatalf("kill %d of %s: %v", pid, node, err)
		}
	}
	l.until("no process of "+node+" is left", func() (bool, string) {
		left := l.of(node)
		return len(left) == 0, fmt.Sprint(left)
	})
}

// destroyed destroys, and wants nothing to be left: no process, no cgroup,
// no listener, no file that was not there before.
func (l *lab) destroyed() {
	l.t.Helper()
	var endpoints []string
	for _, n := range l.state().Objects {
		var attrs struct {
			Endpoint string `json:"endpoint"`
		}
		if n.Type == "node" && json.Unmarshal(n.Attributes, &attrs) == nil && attrs.Endpoint != "" {
			endpoints = append(endpoints, attrs.Endpoint)
		}
	}
	cgroups := l.cgroups()
	l.must(0, "destroy", "--auto-approve")
	for _, dir := range cgroups {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			l.t.Errorf("destroy leaves the cgroup %s: %v", dir, err)
		}
	}
	if left := l.processes(); len(left) > 0 {
		l.t.Errorf("destroy leaves processes: %v", left)
	}
	if left := l.namespaces(); len(left) > 0 {
		l.t.Errorf("destroy leaves namespaces: %q", left)
	}
	for _, e := range append(endpoints, l.address) {
		if !strings.HasPrefix(e, "127.") {
			continue // in a namespace that is no more
		}
		lis, err := net.Listen("tcp", e)
		if err != nil {
			l.t.Errorf("destroy leaves a listener: %v", err)
			continue
		}
		lis.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(l.dir, ".clusterplan", "nodes", "*")); len(left) > 0 {
		l.t.Errorf("destroy leaves %v", left)
	}
	for _, o := range l.state().Objects {
		l.t.Errorf("destroy leaves %s in the state", o.Addr)
	}
	after := l.files()
	for name := range after {
		if _, ok := l.before[name]; !ok {
			l.t.Errorf("a file outside of .clusterplan is left: %s", name)
		}
	}
	for name, text := range l.before {
		if after[name] != text {
			l.t.Errorf("%s is gone or was changed", name)
		}
	}
}

// files are the directory's files with their content, without .clusterplan.
func (l *lab) files() map[string]string {
	out := map[string]string{}
	err := filepath.WalkDir(filepath.Dir(l.dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && d.Name() == ".clusterplan" {
				return filepath.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// state is what the program keeps, with its journal folded in.
func (l *lab) state() statefile.State {
	l.t.Helper()
	store, err := localstore.Open(localstore.DefaultPath(l.dir), localstore.Options{Keys: l.keys})
	if err != nil {
		l.t.Fatal(err)
	}
	snap, err := store.Read(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	return snap.State
}

// identity is the cluster's own, from the state.
func (l *lab) identity() *pki.Identity {
	l.t.Helper()
	c := l.state().Cluster
	if c == nil {
		l.t.Fatal("the state holds no cluster")
	}
	id, err := pki.ParseIdentity(c.ID, c.Name, c.CACert, c.CAKey, c.Key)
	if err != nil {
		l.t.Fatal(err)
	}
	return id
}

// groupOnline waits until the status says so.
func (l *lab) groupOnline(name, owner string) {
	l.t.Helper()
	l.until("group "+name+" is online", func() (bool, string) {
		st := l.status()
		for _, g := range st.Groups {
			if g.Name == name {
				return g.State == "online" && (owner == "" || g.Owner == owner), fmt.Sprintf("%+v", g)
			}
		}
		return false, "no such group"
	})
}

// up waits until the cluster has so many votes, of which so many are up: on a
// busy machine a node may be taken for down for a moment.
func (l *lab) up(votes, up int) {
	l.t.Helper()
	l.until(fmt.Sprintf("%d of %d votes are up", up, votes), func() (bool, string) {
		q := l.status().Quorum
		return q.Have && q.Votes == votes && q.Up == up, fmt.Sprintf("%+v", q)
	})
}
