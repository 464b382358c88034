package faultlab

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// op is one operation of a history, as text: "get=v", "put=v", "cas=a>b",
// with ! for a cas that was refused and ? for an outcome that nobody knows.
func op(client int, call, back int64, text string) porcupine.Operation {
	kind, rest, _ := strings.Cut(text, "=")
	out := answered{unknown: strings.HasSuffix(rest, "?"), ok: !strings.HasSuffix(rest, "!")}
	rest = strings.TrimRight(rest, "?!")
	in := asked{key: "k", kind: kind, new: rest}
	switch kind {
	case "get":
		in.new, out.value = "", rest
	case "cas":
		in.old, in.new, _ = strings.Cut(rest, ">")
	}
	if out.unknown {
		back = 1 << 62
	}
	return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: back}
}

// The model takes what a linearizable store can answer, and nothing else.
func TestModel(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []porcupine.Operation
		want bool
	}{
		{"in order", []porcupine.Operation{op(0, 0, 1, "get="), op(0, 2, 3, "put=a"), op(1, 4, 5, "get=a"), op(1, 6, 7, "cas=a>b"), op(0, 8, 9, "get=b")}, true},
		{"lost update", []porcupine.Operation{op(0, 0, 1, "put=a"), op(0, 2, 3, "put=b"), op(1, 4, 5, "get=a")}, false},
		{"stale read", []porcupine.Operation{op(0, 0, 1, "put=a"), op(0, 2, 9, "put=b"), op(1, 3, 4, "get=b"), op(2, 5, 6, "get=a")}, false},
		{"two at once", []porcupine.Operation{op(0, 0, 9, "put=a"), op(1, 0, 9, "put=b"), op(2, 3, 4, "get=a"), op(2, 5, 6, "get=b")}, true},
		{"both made it", []porcupine.Operation{op(0, 0, 9, "cas=>a"), op(1, 0, 9, "cas=>b")}, false},
		{"one made it", []porcupine.Operation{op(0, 0, 9, "cas=>a!"), op(1, 0, 9, "cas=>b")}, true},
		{"refused without a reason", []porcupine.Operation{op(0, 0, 1, "put=a"), op(0, 2, 3, "cas=a>b!")}, false},
		{"unknown, done late", []porcupine.Operation{op(0, 0, 0, "put=a?"), op(1, 1, 2, "get="), op(1, 3, 4, "get=a")}, true},
		{"unknown, never done", []porcupine.Operation{op(0, 0, 0, "cas=>a?"), op(1, 1, 2, "put=b"), op(1, 3, 4, "get=b")}, true},
		{"unknown, done twice", []porcupine.Operation{op(0, 0, 0, "put=a?"), op(1, 1, 2, "get=a"), op(1, 3, 4, "put=b"), op(1, 5, 6, "get=a")}, false},
	} {
		if got := porcupine.CheckOperations(model, c.ops); got != c.want {
			t.Errorf("%s: linearizable %v, want %v", c.name, got, c.want)
		}
	}
}

// bare is a lab of two nodes without a cluster.
func bare(t *testing.T) *Cluster {
	t.Helper()
	if err := netlab.Allowed(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Config: Config{Nodes: 2}, Lab: netlab.At(dir)}
	for i, node := range c.Names() {
		if _, err := c.Lab.Assign(node, netlab.Networks{netip.MustParsePrefix("10.77.0.0/24")}, netip.Addr{}, i); err != nil {
			t.Fatal(err)
		}
		if err := c.Lab.Wire(node); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Lab.Unwire(node); err != nil {
				t.Error(err)
			}
		})
	}
	if c.Record, err = c.Lab.Record(); err != nil {
		t.Fatal(err)
	}
	return c
}

// An address that two nodes hold is seen, with how long; one that moves is not.
// Answers are told by who gave them.
func TestWatchAndProber(t *testing.T) {
	c := bare(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip program to move an address with")
	}
	ip := func(node string, args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"-n", c.Namespace(node)}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v %s", args, err, out)
		}
	}
	ip("n1", "addr", "add", Address.String()+"/24", "dev", "eth0") // held before anyone watches
	w, err := NewWatch(c, Address)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p, err := NewProber(c, Address)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	by := func(node string) {
		t.Helper()
		if a, err := p.First(t.Context(), func(a Answer) bool { return a.Kind == ICMP && a.By == node }); err != nil || a.Came.Before(a.Sent) {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	held := func(want ...string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			got := w.Holders(Address)
			if len(got) == len(want) && (len(got) == 0 || got[0] == want[0] || len(got) > 1) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v hold the address, want %v", got, want)
			}
		}
	}
	held("n1")
	by("n1")
	ip("n1", "addr", "del", Address.String()+"/24", "dev", "eth0")
	held()
	ip("n2", "addr", "add", Address.String()+"/24", "dev", "eth0")
	held("n2")
	p.Reset()
	ip("client", "neigh", "flush", "all")
	by("n2")
	if d, err := w.Overlap(); d != 0 || err != nil || len(w.Overlaps()) > 0 {
		t.Errorf("an address that moved is told as held twice: %s, %v, %q", d, err, w.Overlaps())
	}
	ip("n1", "addr", "add", Address.String()+"/24", "dev", "eth0")
	held("n1", "n2")
	time.Sleep(30 * time.Millisecond) // what is measured
	ip("n2", "link", "del", "eth0")   // an address goes with its link
	held("n1")
	if d, err := w.Overlap(); d < 30*time.Millisecond || err != nil || len(w.Overlaps()) != 2 {
		t.Errorf("an address that was held twice for 30 ms: %s, %v, %q", d, err, w.Overlaps())
	}
	r := &Runner{Cluster: c, Watch: w, Prober: p}
	if err := r.Check(); err == nil || !strings.Contains(err.Error(), "at once") {
		t.Errorf("the check says %v", err)
	}
}

// An older epoch after a newer one is told, unless the request was under way.
func TestBackward(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	p := &Prober{news: make(chan struct{})}
	for _, a := range []Answer{
		{Kind: HTTP, By: "n1", Epoch: 3, Sent: at(0), Came: at(1)},
		{Kind: HTTP, By: "n2", Epoch: 4, Sent: at(10), Came: at(11)},
		{Kind: HTTP, By: "n1", Epoch: 3, Sent: at(9), Came: at(12)},
		{Kind: ICMP, By: "n1", Sent: at(20), Came: at(21)},
		{Kind: HTTP, By: "n2", Epoch: 4, Sent: at(20), Came: at(21)},
	} {
		p.add(a)
	}
	if told := p.Backward(); len(told) > 0 {
		t.Errorf("told: %q", told)
	}
	p.add(Answer{Kind: HTTP, By: "n1", Epoch: 3, Sent: at(12), Came: at(13)})
	if told := p.Backward(); len(told) != 1 || !strings.Contains(told[0], "n1 answers under epoch 3") {
		t.Errorf("told: %q", told)
	}
}

// Late is who was away for longer than the plan says and the machine stood still.
func TestLate(t *testing.T) {
	tried := Tried{StallMS: 10, Groups: []Took{{Group: "in time", MS: 800, WorstMS: 896}, {Group: "held up", MS: 906, WorstMS: 896}, {Group: "late", MS: 907, WorstMS: 896}}}
	if late := tried.Late(); len(late) != 1 || late[0].Group != "late" || len(tried.Groups) != 3 {
		t.Errorf("%+v", late)
	}
}
