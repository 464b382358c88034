package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// A node goes to another host while its old one can't be reached and runs on there:
// the plan says what is left behind, the group is never on two hosts, and the old
// agent, once it is back in the network, gets nothing any more.
func TestSSHHostLeftBehind(t *testing.T) {
	l, hosts := sshHosts(t, "n4")
	old := hosts.Hosts[0]
	serve := func() (on []string) { // hosts on which the group's program runs
		for _, h := range hosts.Hosts {
			all, err := h.Processes()
			if err != nil {
				t.Error(err)
			}
			for _, line := range all {
				if strings.Contains(line, " demo web ") {
					on = append(on, h.Name)
					break
				}
			}
		}
		return on
	}
	l.edit("provider \"ssh\" {", "provider \"ssh\" {\n  connect_timeout  = \"2s\"")
	l.apply()
	l.until("it answers as n1", func() (bool, string) { got := l.asks(); return got == "n1", got })

	network := netlab.At(filepath.Dir(hosts.Dir))
	cut := func(from, to string) netlab.Fault { return netlab.Fault{Kind: netlab.FaultCut, From: from, To: to} }
	var faults []netlab.Fault
	for _, other := range []string{"n2", "n3", "n4", netlab.Client} {
		faults = append(faults, cut("n1", other), cut(other, "n1"))
	}
	if err := network.Inflict(faults...); err != nil {
		t.Fatal(err)
	}
	l.env = append(l.env, `CLUSTERPLAN_VAR_hosts={"n1": "10.77.0.4", "n2": "10.77.0.2", "n3": "10.77.0.3"}`)
	l.must(2, "plan", "--detailed-exitcode").wants(t, "+/- node.n[\"n1\"]", "10.77.0.1:22", "The host that node.n[\"n1\"] leaves can't be reached", "gets none again")

	stop, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		for ; ; time.Sleep(50 * time.Millisecond) {
			if on := serve(); len(on) > 1 {
				watched <- fmt.Errorf("it runs on %q at once", on)
				return
			}
			select {
			case <-stop:
				watched <- nil
				return
			default:
			}
		}
	}()
	l.apply().wants(t, "has left the cluster and its place is taken, but its host can't be reached", "Once the host is back, stop the agent and remove the directory")
	l.until("it answers elsewhere", func() (bool, string) { got := l.asks(); return len(got) == 2, got })
	l.up(3, 3)
	if all, err := old.Processes(); err != nil || !strings.Contains(fmt.Sprint(all), "/clusterplan agent --dir ") {
		t.Errorf("the old agent does not run: %v, %v", all, err)
	}
	if err := network.Heal(); err != nil {
		t.Fatal(err)
	}
	l.up(3, 3)
	l.settled()
	l.must(0, "move", "web", "n1") // to the new one by that name
	l.until("it answers as n1", func() (bool, string) { got := l.asks(); return got == "n1", got })
	if on := serve(); len(on) != 1 || on[0] != "n4" {
		t.Errorf("it runs on %q", on)
	}
	close(stop)
	if err := <-watched; err != nil {
		t.Error(err)
	}
}
