package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unwrapped is what a command printed, without the lines' ends that the width made.
func (r result) unwrapped() string {
	return strings.Join(strings.Fields(strings.NewReplacer("│", " ", "╷", " ", "╵", " ").Replace(r.out+"\n"+r.stderr)), " ")
}

// Changes of a running cluster's quorum that are refused: the way around that the
// error names, typed as it stands there, leads to the definition that was refused. A
// device that another cluster has used is taken once it was emptied as its error says,
// by the agents that refused it.
func TestQuorumChangeRefused(t *testing.T) {
	l := copyExample(t, "single-quorum")
	l.env = append(l.env, "CLUSTERPLAN_VAR_listen="+l.address)
	l.apply()
	l.groupOnline("web", "a")
	says := func(r result, words string) {
		t.Helper()
		if !strings.Contains(r.unwrapped(), words) {
			t.Fatalf("no %q in %s", words, r)
		}
	}
	around := func(change string) {
		t.Helper()
		for _, command := range []string{"plan", "apply --auto-approve"} {
			r := l.must(1, strings.Fields(command)...)
			says(r, "of a running cluster can't change "+change+": keep ")
			says(r, "; else keep what applications have in the cluster's database elsewhere (GET /v1/kv), then: clusterplan destroy, clusterplan apply")
		}
		l.groupOnline("web", "") // nothing was touched
		l.must(0, "destroy", "--auto-approve")
	}
	first, second := l.device, filepath.Join(t.TempDir(), "another")
	l.device = second
	around("from " + first + " to " + second)
	l.apply()
	l.groupOnline("web", "")
	l.edit("    model  = \"single_quorum\"\n    device = var.device\n", "    model  = \"majority_node_set\"\n")
	around("from single_quorum to majority_node_set")
	l.apply()
	l.groupOnline("web", "")

	l.edit("    model  = \"majority_node_set\"\n", "    model  = \"single_quorum\"\n    device = var.device\n")
	around("from majority_node_set to single_quorum")
	used, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	r := l.must(1, "apply", "--auto-approve")
	says(r, "quorum device "+second+": it belongs to another cluster (id ")
	says(r, "if that is needed no more, empty it (remove the file, or write zeros to the block device's first MiB: dd if=/dev/zero of="+second+" bs=1M count=1) and apply again")
	if now, err := os.ReadFile(second); err != nil || string(now) != string(used) {
		t.Errorf("the other cluster's device was written: %v", err)
	}
	agents := l.agents()
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	l.apply()
	l.settled()
	l.groupOnline("web", "")
	for dir := range l.agents() {
		if agents[dir] == 0 {
			t.Errorf("%s runs an agent, and had none: %v", dir, agents)
		}
	}
	if strings.Contains(l.must(0, "status").out, "problem") {
		t.Error("the quorum device has a problem")
	}
	l.destroyed()
}
