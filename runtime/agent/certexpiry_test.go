package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Nobody applied in time: all certificates have expired, and the agents start
// anew with them. The groups run, the database takes updates, and each node
// says what is wrong; a certificate written beside a running agent mends it.
func TestExpiredCertificatesStopNothing(t *testing.T) {
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n1", "")
	r.settled(admin, allUp)
	put := func(n *nodeRig, life time.Duration, at time.Time) {
		writeNode(t, n.dir, r.id, n.id, n.name, n.endpoint, life)
		if err := os.Chtimes(filepath.Join(n.dir, "node.crt"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range r.nodes {
		if code := n.term(t); code != 0 {
			t.Fatalf("%s ends with %d", n.name, code)
		}
		put(n, -time.Minute, time.Now().Add(-time.Minute))
	}
	for _, n := range r.nodes {
		n.start(t)
	}
	local := client.New(client.Options{Socket: filepath.Join(r.node("n2").dir, "run", "api.sock"), Patience: patience})
	defer local.Close()
	st := r.settled(local, func(s client.Status) string {
		if why := allUp(s); why != "" {
			return why
		}
		for _, n := range s.Nodes {
			if !strings.Contains(n.Reason, "certificate has expired") || n.CertificateUntil == nil {
				return n.Name + " says " + n.Reason
			}
		}
		return ""
	})
	// An update goes through the leader, wherever that is, and the group moves.
	to := "n1"
	if st.Groups[0].Owner == to {
		to = "n3"
	}
	if _, err := local.Move(r.ctx(), "web", client.Order{Node: to}); err != nil {
		t.Fatal(err)
	}
	r.answers(to, "")
	if _, err := admin.Self(r.ctx(), r.node("n1").endpoint); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a caller over the network: %v", err)
	}

	for _, n := range r.nodes {
		put(n, time.Hour, time.Now().Add(time.Minute))
	}
	again := r.client(client.RoleAdmin)
	r.settled(again, func(s client.Status) string {
		for _, n := range s.Nodes {
			if _, err := again.Self(r.ctx(), n.Address); err != nil { // who is called looks at its file
				return err.Error()
			}
			if n.Reason != "" {
				return n.Name + " says " + n.Reason
			}
		}
		return allUp(s)
	})
	events, err := again.Events(r.ctx(), 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range events {
		kinds[e.Kind]++
	}
	if kinds["certificate_expired"] != 3 || kinds["certificate_renewed"] != 3 {
		t.Errorf("events: %v", kinds)
	}
}
