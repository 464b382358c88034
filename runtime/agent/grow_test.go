package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// A single node's cluster becomes one of three while its group runs on: the
// same agent, monitor and process. When the first node dies another has the
// group. Its data directory from before, put back, serves nobody.
func TestOneNodeGrows(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	admin := r.form(spec.SingleNode)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.settled(admin, allUp)
	n1 := r.nodes[0]
	n1.term(t)
	data := filepath.Join(n1.dir, "data")
	backup := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	n1.start(t)
	r.answers("n1", "")
	r.settled(admin, allUp)
	self, pids := r.self(n1), serving(r.web)
	before, err := admin.Events(r.ctx(), 0)
	if err != nil {
		t.Fatal(err)
	}

	// Before: nobody can join.
	for _, name := range []string{"n2", "n3"} {
		r.addNode(name).start(t)
	}
	if _, err := admin.Join(r.ctx(), r.request(r.node("n2"))); err == nil || !strings.Contains(err.Error(), "set quorum.model to majority_node_set") {
		t.Errorf("a second node of a single node's cluster: %v", err)
	}
	cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}, Heartbeat: calm}
	for range 2 { // the second time, as an apply that was cut off
		if _, err := admin.PutCluster(r.ctx(), cl, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range r.nodes[1:] {
		r.join(admin, n)
	}
	st := r.settled(admin, allUp)
	if st.Quorum.Model != spec.MajorityNodeSet || st.Quorum.Votes != 3 || st.Groups[0].Epoch != 1 || st.Groups[0].Owner != "n1" {
		t.Errorf("after the change: %+v", st)
	}
	if again := r.self(n1); again.PID != self.PID || again.MonitorPID != self.MonitorPID || !slices.Equal(serving(r.web), pids) || len(pids) != 1 {
		t.Errorf("something started again: %+v and %v, before %+v and %v", again, serving(r.web), self, pids)
	}
	if _, err := os.Stat(filepath.Join(data, "model")); !os.IsNotExist(err) {
		t.Errorf("the directory is for a single node still: %v", err)
	}
	after, err := admin.Events(r.ctx(), 0)
	if err != nil || len(after) <= len(before) || !slices.EqualFunc(before, after[:len(before)], func(a, b client.Event) bool { return a.ID == b.ID && a.Text == b.Text }) {
		t.Errorf("the event log of before is not the beginning of the new one: %v", err)
	}

	// No way back.
	cl.Quorum.Model = spec.SingleNode
	if _, err := admin.PutCluster(r.ctx(), cl, 0); err == nil || !strings.Contains(err.Error(), "keep majority_node_set and remove the other nodes") {
		t.Errorf("back to a single node: %v", err)
	}

	for _, pid := range []int{self.PID, self.MonitorPID} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	n1.kill()
	if by := r.answers("", "n1"); by != "n2" {
		t.Errorf("the group went to %s", by)
	}
	kept := data + ".kept"
	if err := os.Rename(data, kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, data); err != nil {
		t.Fatal(err)
	}
	n1.start(t)
	select {
	case <-n1.done:
	case <-r.ctx().Done():
		t.Fatal("the old directory serves")
	}
	log, _ := os.ReadFile(filepath.Join(n1.dir, "agent.log"))
	if !strings.Contains(string(log), "may not serve alone any more") {
		t.Error("it doesn't say why it ended")
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(kept, data); err != nil {
		t.Fatal(err)
	}
	n1.start(t)
	r.settled(admin, allUp)
}
