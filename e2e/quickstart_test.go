package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the README walks through, from nothing to nothing.
func TestQuickstart(t *testing.T) {
	l := newLab(t)
	l.apply().wants(t, "clusterplan status", "clusterplan destroy")
	if from := l.served("n1"); from != "n1" {
		t.Fatalf("answers from %s", from)
	}
	url := strings.TrimSpace(l.must(0, "output", "--raw", "url").out)
	if res, err := http.Get(url); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("GET %s: %v, %v", url, res, err)
	} else {
		res.Body.Close()
	}

	l.up(3, 3)
	st := l.status()
	if st.FormatVersion != "1.0" || st.Cluster != "quickstart" || st.Quorum.Needed != 2 {
		t.Errorf("status: %+v", st)
	}
	for _, n := range st.Nodes {
		if n.State != "up" || n.PID == 0 || n.MonitorPID == 0 || n.Votes != 1 || n.Role != "member" {
			t.Errorf("status of %s: %+v", n.Name, n)
		}
	}
	l.groupOnline("web", "n1")
	l.groupOnline("worker", "n2")
	l.must(0, "status").wants(t, "n1", "web", "online")
	l.must(0, "events").wants(t, "web")
	l.must(0, "logs", "worker").wants(t, "n1")
	l.must(0, "logs", "worker", "--json").wants(t, `"address":"group.worker.resource.worker","node":"n2","text":"`)
	l.settled()

	var plan struct {
		FormatVersion string            `json:"format_version"`
		Complete      bool              `json:"complete"`
		Applyable     bool              `json:"applyable"`
		Changes       []json.RawMessage `json:"changes"`
	}
	r := l.must(0, "plan", "--json")
	if err := json.Unmarshal([]byte(r.out), &plan); err != nil || plan.FormatVersion != "1.0" || !plan.Complete || plan.Applyable {
		t.Errorf("plan --json: %v: %s", err, r)
	}
	// What else there is with --json: run holds each to its schema.
	for _, args := range []string{"version", "validate", "show", "output", "output url", "state list", "state show group.web", "events", "events --why group.web",
		"simulate --fail n1", "move worker n3 --reason trial", "pause n2", "resume n2"} {
		if r := l.must(0, append(strings.Fields(args), "--json")...); !json.Valid([]byte(r.out)) && args != "events" || r.out == "" {
			t.Errorf("no JSON: %s", r)
		}
	}
	keysArePrivate(t, l)
	l.doctorKnowsMoved("n3", "third")
	l.destroyed()
	if r := l.run("status"); r.code != 1 {
		t.Errorf("status after destroy: %s", r)
	}
	// And once more: nothing of the first cluster is in the way.
	l.apply()
	l.served("n1")
	l.destroyed()
}

// doctorKnowsMoved has a moved block give a node another address, and doctor go by it
// before the next apply: what is there is that node's.
func (l *lab) doctorKnowsMoved(from, to string) {
	l.t.Helper()
	file := filepath.Join(l.dir, "main.cluster.hcl")
	was, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	write := func(text string) {
		l.t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
	write(strings.NewReplacer("node."+from, "node."+to, "node \""+from+"\" {", "moved {\n  from = node."+from+"\n  to   = node."+to+"\n}\n\nnode \""+to+"\" {").Replace(string(was)))
	l.must(0, "doctor").wants(l.t, "the agent of node."+to+" has it")
	write(string(was))
}

func keysArePrivate(t *testing.T, l *lab) {
	t.Helper()
	for _, n := range []string{"n1", "n2", "n3"} {
		for _, file := range []string{"node.key", "cluster.key"} {
			info, err := os.Stat(l.dir + "/.clusterplan/nodes/" + n + "/" + file)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s of %s: %v, %v", file, n, info.Mode(), err)
			}
		}
	}
	if info, err := os.Stat(l.dir + "/.clusterplan/state.json"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the state: %v", err)
	}
}

// The owner's agent and monitor are killed: another node answers, nothing of
// the dead one is left, and apply brings it back.
func TestNodeKilled(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	l.kill("n1")
	l.served("!n1")
	if left := l.of("n1"); len(left) > 0 {
		t.Errorf("of n1 there still is %v", left)
	}
	l.must(2, "plan", "--detailed-exitcode").wants(t, "node.n1", "agent not running")
	if got := l.planned(); !slices.Equal(got, []string{"node.n1"}) {
		t.Errorf("the plan changes %q", got)
	}
	l.apply()
	l.settled()
	l.served("n1") // failback: immediate, after its delay
	l.destroyed()
}

// Two of three agents are dead: there is no quorum, the plan still works and
// says what it could not see, and apply starts them first.
func TestQuorumLost(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	l.kill("n2")
	l.kill("n3")
	l.until("n1 stops serving without a quorum", func() (bool, string) {
		from, err := l.answer()
		return err != nil, from
	})
	r := l.run("plan", "--detailed-exitcode")
	if r.code != 2 {
		t.Errorf("plan without quorum: %s", r)
	}
	r.wants(t, "agent not running", "node.n2", "node.n3", "no quorum")
	l.apply()
	l.served("n1", "n2", "n3")
	l.settled()
	l.destroyed()
}

// All agents are dead, as after a reboot of this machine: destroy needs none of
// them, and apply would bring them back.
func TestAllKilled(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	pids := l.processes()
	for _, p := range pids {
		killProcess(p.pid)
	}
	l.until("all are gone", func() (bool, string) { left := l.processes(); return len(left) == 0, fmt.Sprint(left) })
	if r := l.run("status", "--json"); r.code != 1 {
		t.Errorf("status with no agent: %s", r)
	}
	l.must(2, "plan", "--detailed-exitcode").wants(t, "agent not running")
	l.apply()
	l.served("n1", "n2", "n3")
	l.settled()
	for _, p := range l.processes() {
		killProcess(p.pid)
	}
	l.destroyed()
}

// prober asks the group's address until it is stopped, and keeps the longest
// time without an answer.
type prober struct {
	stop chan struct{}
	done chan time.Duration
}

func (l *lab) probe() *prober {
	p := &prober{stop: make(chan struct{}), done: make(chan time.Duration)}
	go func() {
		last, worst := time.Now(), time.Duration(0)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := l.answer(); err == nil {
				worst, last = max(worst, time.Since(last)), time.Now()
			}
			select {
			case <-p.stop:
				p.done <- max(worst, time.Since(last))
				return
			case <-tick.C:
			}
		}
	}()
	return p
}

func (p *prober) worst() time.Duration {
	close(p.stop)
	return <-p.done
}
