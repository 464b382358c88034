package agent_test

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestOneNode(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	admin := r.form(spec.SingleNode)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n1", "")
	before, err := admin.Config(r.ctx(), true)
	if err != nil {
		t.Fatal(err)
	}
	r.nodes[0].kill()
	r.nodes[0].start(t)
	r.settled(admin, allUp)
	r.answers("n1", "")
	after, err := admin.Config(r.ctx(), true)
	if err != nil || after.ConfigRevision != before.ConfigRevision || len(after.Groups) != 1 {
		t.Errorf("config before %+v, after %+v, %v", before, after, err)
	}
}
