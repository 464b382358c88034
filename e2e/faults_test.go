package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// A port that is taken is told before anything is touched. Without the node that
// wants it the other two form the cluster and serve; once it is free, it joins.
func TestNodeThatNeverStarts(t *testing.T) {
	l := newLab(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	endpoint := taken.Addr().String()
	// The first of the preferred owners, and the one that a cluster would begin on.
	l.edit("node \"n1\" {\n  provider = local\n", fmt.Sprintf("node \"n1\" {\n  provider = local\n  address = %q\n", endpoint))
	r := l.must(1, "apply", "--auto-approve")
	r.wants(t, "nothing was touched", "node.n1", endpoint, "taken", "--exclude")
	if left, _ := filepath.Glob(filepath.Join(l.dir, ".clusterplan", "nodes", "*")); len(left) > 0 {
		t.Errorf("what was refused has left %q", left)
	}
	l.must(0, "apply", "--auto-approve", "--exclude", "node.n1")
	l.served("n2", "n3")
	l.up(2, 2)
	taken.Close()
	l.apply()
	l.settled()
	l.up(3, 3)
	l.destroyed()
}

// An agent that can't run is told with what it said last; the others go on.
func TestAgentThatEndsAtOnce(t *testing.T) {
	l := newLab(t)
	data := filepath.Join(l.dir, ".clusterplan", "nodes", "n2", "data")
	if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(data, nil, 0o600); err != nil { // where its database should lie
		t.Fatal(err)
	}
	r := l.must(1, "apply", "--auto-approve")
	r.wants(t, "start node n2", "ended at once", data, filepath.Join("n2", "log", "agent.log"))
	l.served("n1")
	l.up(2, 2)
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	l.whole()
}

// journalGrows waits until an apply under way has written n more times to its
// journal, or has ended.
func (l *lab) journalGrows(n int, done <-chan error) bool {
	l.t.Helper()
	journal := filepath.Join(l.dir, ".clusterplan", "state.json.journal")
	last, deadline := int64(-1), time.Now().Add(long)
	for n > 0 && time.Now().Before(deadline) {
		select {
		case err := <-done:
			l.t.Logf("the apply ended before: %v", err)
			return false
		default:
		}
		if info, err := os.Stat(journal); err == nil && info.Size() != last {
			if last = info.Size(); last > 0 {
				n--
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
	return n == 0
}

// begin starts a command (default: an apply) and does not wait for it.
func (l *lab) begin(args ...string) (pid int, done chan error, output func() string) {
	l.t.Helper()
	if len(args) == 0 {
		args = []string{"apply", "--auto-approve"}
	}
	cmd, out, stderr := l.command(context.Background(), args...)
	start := cmd.Start
	if l.namespace != "" {
		start = func() error { return netlab.Start(l.namespace, cmd) }
	}
	cmd.Stdin = l.stdin
	if err := start(); err != nil {
		l.t.Fatal(err)
	}
	pid, ended := cmd.Process.Pid, make(chan error, 1)
	end := &screen{}
	go func() {
		err := cmd.Wait()
		fmt.Fprintln(end, cmd.ProcessState)
		ended <- err
	}()
	return pid, ended, func() string { return end.String() + out.String() + stderr.String() }
}

// prints waits until a command that was begun has printed that.
func (l *lab) prints(want string, output func() string) {
	l.t.Helper()
	for end := time.Now().Add(long); !strings.Contains(output(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("it does not print %q: %s", want, output())
		}
	}
}

func (l *lab) ended(done <-chan error, output func() string) {
	l.t.Helper()
	select {
	case <-done:
	case <-time.After(2 * long):
		l.t.Fatalf("the apply does not end: %s", output())
	}
}

// agents are how many agents there are of each node.
func (l *lab) agents() map[string]int {
	n := map[string]int{}
	for _, p := range l.processes() {
		if _, dir, ok := strings.Cut(p.args, " agent --dir "); ok {
			n[filepath.Base(strings.TrimSpace(dir))]++
		}
	}
	return n
}

// whole wants what an apply that nobody interrupted leaves.
func (l *lab) whole() {
	l.t.Helper()
	l.apply()
	l.settled()
	l.served("n1", "n2", "n3")
	for name, n := range l.agents() {
		if n != 1 {
			l.t.Errorf("%d agents of %s", n, name)
		}
	}
	l.up(3, 3)
	if st := l.status(); len(st.Nodes) != 3 || len(st.Groups) != 2 {
		l.t.Errorf("status: %+v", st)
	}
	l.destroyed()
}

func TestInterrupted(t *testing.T) {
	for signals, name := range []string{1: "once", 2: "twice"} {
		if name == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			pid, done, output := l.begin()
			if !l.journalGrows(4, done) {
				t.Fatalf("the apply was too fast or too slow: %s", output())
			}
			if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if signals == 2 { // once the first is answered: two at a time become one
				l.prints("Interrupted: finishing", output)
				_ = syscall.Kill(pid, syscall.SIGINT) // too late for an apply that has just finished
			}
			l.ended(done, output)
			if text := output(); !strings.Contains(text, "exit status 130") {
				t.Errorf("it ends with %s", text)
			}
			l.whole()
		})
	}
}

// Killed at any of its journal writes, an apply is taken up by the next one:
// nothing is orphaned, nothing made twice.
func TestKilledAtJournalWrite(t *testing.T) {
	const writes = 32 // of an apply of the quickstart, about, some of them together; past the last one it ends by itself
	for n := 1; n <= writes; n++ {
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			l := newLab(t)
			pid, done, output := l.begin()
			if l.journalGrows(n, done) {
				killProcess(pid)
				l.ended(done, output)
			}
			l.whole()
		})
	}
}

// The same while nodes come and go, and while all is destroyed.
func TestKilledWhileItChanges(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for try := range 4 {
		n := 1 + r.IntN(5) + 5*try
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			l := newLab(t)
			l.apply()
			l.served("n1")
			// The owner goes, another node comes, and a group gets a resource more.
			l.edit("node \"n1\" {", "node \"n4\" {")
			l.edit("preferred_owners = [node.n1, node.n2, node.n3]", "preferred_owners = [node.n4, node.n2, node.n3]")
			l.edit("preferred_owners = [node.n2, node.n3, node.n1]", "preferred_owners = [node.n2, node.n3]")
			l.edit(`  resource "generic_application" "worker" {`, `  resource "generic_application" "second" {
    command = ["sleep", "100000"]
  }

  resource "generic_application" "worker" {`)
			pid, done, output := l.begin()
			if l.journalGrows(n, done) {
				killProcess(pid)
				l.ended(done, output)
			}
			l.apply()
			l.settled()
			l.served("n2", "n3", "n4")
			if agents := l.agents(); fmt.Sprint(agents) != "map[n2:1 n3:1 n4:1]" {
				t.Errorf("agents: %v", agents)
			}
			l.up(3, 3)
			pid, done, output = l.begin("destroy", "--auto-approve")
			if l.journalGrows(1+n/3, done) {
				killProcess(pid)
				l.ended(done, output)
			}
			l.destroyed()
		})
	}
}

// A state that somebody else locks is told, with who.
func TestTwoApplies(t *testing.T) {
	l := newLab(t)
	_, done, output := l.begin()
	if !l.journalGrows(2, done) {
		t.Fatalf("the apply was too fast or too slow: %s", output())
	}
	l.must(4, "apply", "--auto-approve").wants(t, "lock")
	l.ended(done, output)
	if text := output(); !strings.Contains(text, "exit status 0") {
		t.Errorf("the first apply: %s", text)
	}
	l.settled()
	l.destroyed()
}

// Every example that is not the quickstart is applied and destroyed, and its
// programs run: none has ended by itself.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "examples", "*", "main.cluster.*"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"environments/staging", "environments/production"}
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	for _, name := range names {
		if name == "quickstart" || name == "cluster-aware" || name == "ssh" || name == "libvirt" { // these have tests of their own
			continue
		}
		t.Run(name, func(t *testing.T) {
			if name == "netns" && os.Geteuid() != 0 {
				t.Skip("network namespaces need root")
			}
			l := copyExample(t, name)
			l.apply()
			l.settled()
			if events := l.must(0, "events", "--json"); strings.Contains(events.out, `"resource_failed"`) {
				t.Errorf("a program of the example ends by itself: %s", events)
			}
			l.destroyed()
		})
	}
}
