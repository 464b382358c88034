package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// netns is a lab whose nodes are in namespaces: a copy of the example.
func netns(t *testing.T) *lab {
	t.Helper()
	if err := netlab.Allowed(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	return copyExample(t, "netns")
}

// namespaces are those that are named for this definition.
func (l *lab) namespaces() []string {
	sum := sha256.Sum256([]byte(filepath.Join(l.dir, ".clusterplan")))
	left, err := filepath.Glob("/run/netns/cp" + hex.EncodeToString(sum[:])[:8] + "*")
	if err != nil {
		l.t.Fatal(err)
	}
	return left
}

// endNamespaces makes sure that a test that failed half way leaves none.
func (l *lab) endNamespaces() {
	left := l.namespaces()
	for _, ns := range left {
		_, _ = netlab.Signal(filepath.Base(ns), syscall.SIGKILL)
		_ = syscall.Unmount(ns, syscall.MNT_FORCE)
		_ = syscall.Unlink(ns)
	}
	if len(left) > 0 && !l.t.Failed() {
		l.t.Errorf("namespaces are left: %q", left)
	}
}

// fetch asks the group's address from the client's namespace.
func (l *lab) fetch() string {
	l.t.Helper()
	r, err := netlab.At(filepath.Join(l.dir, ".clusterplan")).Record()
	if err != nil {
		l.t.Fatal(err)
	}
	return fetchFrom(r.Seats[netlab.Client].Namespace, "http://10.77.0.100/")
}

// fetchFrom is what answers at a URL in a namespace, or why nothing does.
func fetchFrom(namespace, url string) string {
	hc := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return netlab.Dial(ctx, namespace, network, address)
		}}}
	res, err := hc.Get(url)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

// Every lab command does what it says, as its users see it.
func TestNetnsLabCommands(t *testing.T) {
	l := netns(t)
	if r := l.must(1, "lab", "status"); !strings.Contains(r.stderr, "no network lab") {
		t.Errorf("before the first apply: %s", r)
	}
	l.apply()
	l.settled()
	l.groupOnline("web", "n1")
	reach := func(from, to string) bool {
		t.Helper()
		return l.run("lab", "exec", from, "--", "bash", "-c", "echo > /dev/tcp/"+to+"/7400").code == 0
	}
	if !reach("client", "10.77.0.1") || !reach("n2", "10.77.0.3") {
		t.Fatal("nothing is cut, and nodes don't reach each other")
	}
	if r := l.must(7, "lab", "exec", "n2", "--", "sh", "-c", "echo $0; exit 7"); strings.TrimSpace(r.out) != "sh" {
		t.Errorf("exec: %s", r)
	}
	l.must(128+9, "lab", "exec", "n2", "--", "sh", "-c", "kill -9 $$")
	l.must(1, "lab", "exec", "n2", "--", "no-such-program").wants(t, "no-such-program")
	l.must(1, "lab", "cut", "n1", "n9").wants(t, "has no n9", "client, n1, n2, n3")
	l.must(1, "lab", "cut", "n1", "node.n1").wants(t, "itself")

	l.must(0, "lab", "cut", "n2", "n3").wants(t, "from n2 to n3", "from n3 to n2")
	l.must(0, "lab", "loss", "1.5%", "client", "n1")
	var look struct {
		Faults []netlab.Fault `json:"faults"`
		Seats  []struct {
			Name      string
			Processes int
		}
	}
	if r := l.must(0, "lab", "status", "--json"); json.Unmarshal([]byte(r.out), &look) != nil || len(look.Faults) != 4 || len(look.Seats) != 4 ||
		look.Faults[3] != (netlab.Fault{Kind: netlab.FaultLoss, From: "n1", To: "client", Percent: 1.5}) {
		t.Errorf("lab status: %s", r)
	}
	if !reach("client", "10.77.0.2") {
		t.Error("a cut between n2 and n3 cuts the client off")
	}
	// The CLI sees a node behind the cut all the same.
	for _, n := range l.status().Nodes {
		if n.PID == 0 {
			t.Errorf("status does not reach %s", n.Name)
		}
	}
	l.must(0, "lab", "heal")
	look.Faults = nil
	if r := l.must(0, "lab", "isolate", "n1", "--json"); json.Unmarshal([]byte(r.out), &look) != nil || len(look.Faults) != 1 || look.Faults[0].Kind != netlab.FaultIsolate {
		t.Errorf("the lab once n1 is isolated: %s", r)
	}
	l.groupOnline("web", "n2")
	l.until("n2 answers the client", func() (bool, string) { got := l.fetch(); return got == "n2", got })
	l.must(0, "lab", "heal")
	l.up(3, 3)

	l.must(0, "lab", "kill", "n2").wants(t, "killed")
	l.must(1, "lab", "kill", "n2").wants(t, "No process")
	l.until("n3 answers the client", func() (bool, string) { got := l.fetch(); return got == "n3", got })
	l.must(0, "lab", "hang", "n3")
	l.must(0, "lab", "wake", "n3", "--json").wants(t, `"faults": []`)
	l.apply()
	l.settled()
	l.must(0, "lab", "kill", "n3") // what its monitor and its guardians would have taken away, destroy does
	l.destroyed()
}

// Killed in the middle, an apply or a destroy leaves nothing that the next
// destroy does not find; and a second apply goes on where the first was.
func TestNetnsKilledApply(t *testing.T) {
	for _, n := range []int{1, 4, 7, 11} {
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			l := netns(t)
			pid, done, output := l.begin()
			if l.journalGrows(n, done) {
				killProcess(pid)
				l.ended(done, output)
			}
			if n != 4 { // destroyed as it is
				l.apply()
				l.settled()
				l.groupOnline("web", "")
			}
			if n == 7 {
				pid, done, output = l.begin("destroy", "--auto-approve")
				if l.journalGrows(2, done) {
					killProcess(pid)
					l.ended(done, output)
				}
			}
			l.destroyed()
		})
	}
}
