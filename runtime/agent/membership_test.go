package agent_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// addressesEnv gives an agent of these tests the addresses that its host would
// have, were it alone on it.
const addressesEnv = "CLUSTERPLAN_TEST_ADDRESSES"

func testAddresses() func() ([]netip.Addr, error) {
	list := os.Getenv(addressesEnv)
	if list == "" {
		return nil
	}
	return func() ([]netip.Addr, error) {
		var out []netip.Addr
		for _, a := range strings.Split(list, ",") {
			out = append(out, netip.MustParseAddr(a))
		}
		return out, nil
	}
}

// What two agents say, by UDP, to a third that was killed: a beat and the 18
// probes of profile mscs, at the seed's times.
func TestProbesOnTheWire(t *testing.T) {
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}, MaxUnavailable: 1,
		Heartbeat: spec.Timings{Profile: spec.ProfileMSCS}.WithDefaults()}
	if _, err := admin.PutCluster(r.ctx(), cl, 0); err != nil {
		t.Fatal(err)
	}
	// A leader hurries until all hold long leases, and a busy machine is late now
	// and then: so a few tries.
	told := ""
	for range 4 {
		if told = probesOf(t, r); told == "" {
			return
		}
		eventually(t, func() string {
			st, err := admin.Status(r.ctx())
			if err != nil {
				return err.Error()
			}
			for _, n := range st.Nodes {
				if n.State != spec.NodeUp {
					return n.Name + " is " + n.State
				}
			}
			return ""
		})
	}
	t.Errorf("no 18 probes by the schedule:\n%s", told)
}

// probesOf kills the third node, listens in its place, and starts it again. It
// returns what came, or "" if one of the others kept to the schedule.
func probesOf(t *testing.T, r *clusterRig) string {
	victim := r.nodes[2]
	victim.kill()
	defer victim.start(t)
	at, err := net.ResolveUDPAddr("udp", victim.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard := map[string][]time.Duration{}
	start := time.Now()
	_ = conn.SetReadDeadline(start.Add(12 * time.Second))
	buf := make([]byte, 2000)
	for {
		_, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		heard[from.String()] = append(heard[from.String()], time.Since(start))
	}
	schedule := []time.Duration{0, 700, 1400, 2100, 2350, 2600, 2850, 3150, 3450, 3630, 3810, 3990, 4170, 4350, 4650, 4950, 5100, 5250}
	var told []string
	for _, from := range []string{r.nodes[0].endpoint, r.nodes[1].endpoint} {
		times := heard[from]
		for i := 0; i+len(schedule) <= len(times); i++ {
			worst := time.Duration(0)
			for k, want := range schedule {
				d := times[i+k] - times[i] - want*time.Millisecond
				worst = max(worst, d.Abs())
			}
			if worst < 250*time.Millisecond {
				return ""
			}
		}
		told = append(told, fmt.Sprintf("%s: %v", from, times))
	}
	return strings.Join(told, "\n")
}

// Frames go over two links beside the nodes' addresses; status tells the links;
// a rotation of the frame key interrupts nobody, and a node that was killed
// before two of them is back afterwards.
func TestLinksAndKeys(t *testing.T) {
	r := newRig(t, 3)
	for i, n := range r.nodes {
		n.env = []string{fmt.Sprintf("%s=127.0.0.1,127.10.0.%d,127.20.0.%d", addressesEnv, i+1, i+1)}
	}
	admin := r.form(spec.MajorityNodeSet)
	cl := spec.Cluster{ID: r.id.ID, Name: "test", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}, MaxUnavailable: 1,
		Heartbeat: spec.Timings{Profile: spec.ProfileFast}.WithDefaults(),
		Links: []spec.Link{{Name: "a", Subnet: "127.10.0.0/16", Role: spec.LinkInternal}, {Name: "b", Subnet: "127.20.0.0/16", Role: spec.LinkAll},
			{Name: "c", Subnet: "127.0.0.0/24", Role: spec.LinkClient}}}
	if _, err := admin.PutCluster(r.ctx(), cl, 0); err != nil {
		t.Fatal(err)
	}
	links := func() string {
		st, err := admin.Status(r.ctx())
		if err != nil {
			return err.Error()
		}
		var out []string
		for i, n := range st.Nodes {
			for k, l := range n.Links {
				want := []string{fmt.Sprintf("127.10.0.%d", i+1), fmt.Sprintf("127.20.0.%d", i+1), "127.0.0.1"}[k]
				if l.Address != want || len(l.Lost) > 0 {
					out = append(out, fmt.Sprintf("%s: link %s at %q, lost %v", n.Name, l.Link, l.Address, l.Lost))
				}
			}
			if n.State != spec.NodeUp || len(n.Links) != 3 {
				out = append(out, fmt.Sprintf("%s is %s with links %v", n.Name, n.State, n.Links))
			}
		}
		return strings.Join(out, "; ")
	}
	eventually(t, links) // node addresses lie in a client link: what the nodes hear, they hear on the links
	rotate := func(generation uint32) {
		t.Helper()
		if _, err := admin.RotateKeys(r.ctx(), "test"); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			k, err := admin.Keys(r.ctx())
			if err != nil {
				return err.Error()
			}
			if k.Generation != generation || k.Phase != "" {
				return fmt.Sprintf("%+v", k)
			}
			return ""
		})
	}
	victim := r.nodes[2]
	victim.kill()
	eventually(t, func() string {
		if l := links(); !strings.Contains(l, "n3 is down") {
			return "n3 is not down: " + l
		}
		return ""
	})
	rotate(1)
	rotate(2)
	victim.env = []string{fmt.Sprintf("%s=127.0.0.1,127.10.0.3", addressesEnv)} // it comes back without its place on b
	victim.start(t)
	eventually(t, func() string {
		if l := links(); l != `n3: link b at "", lost []` {
			return l
		}
		return ""
	})
	eventually(t, func() string { // events are a node's copy, perhaps not that one's which told the links
		events, err := admin.Events(r.ctx(), 0)
		if err != nil {
			return err.Error()
		}
		word := "no event tells that n3 lost its place on link b"
		for _, e := range events {
			if e.Kind == "link_lost" && strings.Contains(e.Text, "no address on link b") {
				word = ""
			}
			if strings.Contains(e.Kind, "node_down") && e.Node != "n3" {
				t.Errorf("a rotation interrupted %s: %s", e.Node, e.Text)
			}
		}
		return word
	})
	if _, err := r.client(client.RoleOperator).RotateKeys(r.ctx(), ""); err == nil {
		t.Error("an operator rotated the frame key")
	}
}

// Two clusters with one name, one of which has a node at the address where the
// other's was: neither takes the other's frames or streams for its own.
func TestTwoClustersNeverMix(t *testing.T) {
	t.Parallel()
	a := newRig(t, 3)
	adminA := a.form(spec.MajorityNodeSet)
	lost := a.nodes[2]
	lost.kill()
	b := newRig(t, 1)
	stranger := b.nodes[0]
	stranger.endpoint = lost.endpoint
	writeNode(t, stranger.dir, b.id, stranger.id, "n3", lost.endpoint, time.Hour)
	stranger.name = "n3"
	adminB := b.form(spec.MajorityNodeSet)
	names := func(c *client.Client) string {
		st, err := c.Status(a.ctx())
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, n := range st.Nodes {
			out = append(out, n.Name+" "+n.State)
		}
		return strings.Join(out, ", ")
	}
	eventually(t, func() string {
		if got := names(adminA); got != "n1 up, n2 up, n3 down" {
			return got
		}
		if got := names(adminB); got != "n3 up" {
			return got
		}
		return ""
	})
	log := ""
	eventually(t, func() string { // the other's frames came, and were refused
		data, _ := os.ReadFile(stranger.dir + "/agent.log")
		if log = string(data); !strings.Contains(log, "of another cluster") {
			return "no foreign frame was told"
		}
		return ""
	})
	if got := names(adminA) + "; " + names(adminB); got != "n1 up, n2 up, n3 down; n3 up" {
		t.Error(got)
	}
}
