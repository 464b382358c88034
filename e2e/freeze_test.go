package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// program is the process of a node whose command line holds those words; 0: none.
func (l *lab) programOf(node, words string) int {
	for _, p := range l.of(node) {
		if strings.Contains(p.args, words) && !strings.Contains(p.args, " guard ") {
			return p.pid
		}
	}
	return 0
}

// no_quorum = "freeze": two of three nodes hang, and with them the quorum. The
// group goes on, by the same process, while another on that node stops; when the
// quorum is back, it is the same process still, under the same epoch. Then its own
// agent hangs: it answers until the fence has ended it, and only then elsewhere.
func TestFreeze(t *testing.T) {
	l := newLab(t)
	l.patient()
	l.edit("group \"web\" {\n", "group \"web\" {\n  no_quorum = \"freeze\"\n")
	l.edit("preferred_owners = [node.n2, node.n3, node.n1]", "preferred_owners = [node.n1, node.n2, node.n3]")
	l.must(1, "validate").wants(t, "Frozen group without a fence", "only a fence does")
	// The delay: a node that a busy machine keeps from answering for a moment is left alone.
	l.edit("output \"url\"", "fence \"here\" {\n  agent = \"local\"\n  delay = \"3s\"\n}\n\noutput \"url\"")
	l.must(0, "validate")
	l.must(0, "plan").wants(t, "freeze", "fence")
	l.apply()
	l.settled()
	l.served("n1")
	l.groupOnline("worker", "n1")
	l.groupOnline("web", "n1")
	epoch := func() uint64 {
		for _, g := range l.status().Groups {
			if g.Name == "web" {
				return g.Epoch
			}
		}
		return 0
	}
	was, pid := epoch(), l.programOf("n1", "demo web")
	if was == 0 || pid == 0 {
		t.Fatalf("epoch %d, process %d", was, pid)
	}

	others := append(l.of("n2"), l.of("n3")...)
	signal := func(s syscall.Signal) {
		for _, p := range others {
			_ = syscall.Kill(p.pid, s) // the kernel has ended some meanwhile
		}
	}
	signal(syscall.SIGSTOP)
	l.until("the other group has stopped for want of a lease", func() (bool, string) {
		p := l.programOf("n1", "demo worker")
		return p == 0, fmt.Sprint(p)
	})
	for range 10 {
		l.served("n1")
	}
	if now := l.programOf("n1", "demo web"); now != pid {
		t.Errorf("process %d serves without a quorum, and %d did", now, pid)
	}
	signal(syscall.SIGCONT)
	l.groupOnline("worker", "n1") // there is a lease again
	l.served("n1")
	if now, e := l.programOf("n1", "demo web"), epoch(); now != pid || e != was {
		t.Errorf("process %d, epoch %d with a quorum again; it was %d and %d", now, e, pid, was)
	}

	if err := syscall.Kill(l.node("n1").PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l.served("n2", "n3")
	if left := l.of("n1"); len(left) > 0 {
		t.Errorf("it answers elsewhere, and there is left of n1: %v", left)
	}
	if e := epoch(); e != was+1 {
		t.Errorf("epoch %d after the fence, %d before", e, was)
	}
	l.must(0, "events").wants(t, "node n1 is off, verified by here", "group web fails over from node n1, which was fenced")
	l.apply()
	l.up(3, 3)
	l.destroyed()
}
