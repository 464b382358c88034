package netlab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// needs skips where namespaces can't be made.
func needs(t *testing.T) {
	t.Helper()
	if err := Allowed(); err != nil {
		t.Skipf("no network lab here: %v", err)
	}
	name := "cptest-probe"
	if err := create(name); err != nil {
		t.Skipf("no network lab here: %v", err)
	}
	if err := remove(name); err != nil {
		t.Fatal(err)
	}
}

var nets = Networks{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("fd77::/64")}

func newLab(t *testing.T, keys ...string) *Lab {
	t.Helper()
	needs(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := At(dir)
	t.Cleanup(func() {
		r, _ := l.there()
		for key := range r.Seats {
			if err := l.Unwire(key); err != nil {
				t.Error(err)
			}
		}
		if left, _ := all(l.prefix()); len(left) > 0 {
			t.Errorf("namespaces are left: %q", left)
		}
		if _, err := l.Record(); !errors.Is(err, ErrNone) {
			t.Errorf("a record is left: %v", err)
		}
	})
	for i, key := range keys {
		if _, err := l.Assign(key, nets, netip.Addr{}, i); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time finds it done
			if err := l.Wire(key); err != nil {
				t.Fatal(err)
			}
		}
		if words, err := l.Check(key); err != nil || len(words) > 0 {
			t.Fatalf("%s: %q, %v", key, words, err)
		}
	}
	return l
}

// ask sends UDP packets from one seat to another until one is answered, or for
// none comes within a while: packets that answer nothing are lost, not late, on
// such a wire.
func (l *Lab) reaches(t *testing.T, from, to string, which int, patience time.Duration) bool {
	t.Helper()
	r, err := l.Record()
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(r.Seats[to].AllAddresses()[which].Addr(), 9)
	var server net.PacketConn
	if err := Do(r.Seats[to].Namespace, func() error {
		server, err = net.ListenPacket("udp", at.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := Dial(context.Background(), r.Seats[from].Namespace, "udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if _, err := conn.Write([]byte("here")); errors.Is(err, net.ErrClosed) {
				return
			}
		}
		server.SetReadDeadline(time.Now())
	}()
	_, _, err = server.ReadFrom(make([]byte, 16))
	return err == nil
}

func TestCuts(t *testing.T) {
	l := newLab(t, "n1", "n2", "a node with quite a name")
	long := "a node with quite a name"
	cut := func(a, b string) Fault { return Fault{Kind: FaultCut, From: a, To: b} }
	for _, c := range []struct {
		name   string
		faults []Fault
		down   []string // a>b
	}{
		{"none", nil, nil},
		{"one way", []Fault{cut("n1", "n2")}, []string{"n1>n2"}},
		{"both ways", []Fault{cut("n1", long), cut(long, "n1")}, []string{"n1>" + long, long + ">n1"}},
		{"isolated", []Fault{{Kind: FaultIsolate, From: "n2"}}, []string{"n1>n2", "n2>n1", "n2>" + long, long + ">n2", "client>n2", "n2>client"}},
		{"deaf", []Fault{{Kind: FaultCut, To: "n2"}}, []string{"n1>n2", long + ">n2", "client>n2"}},
		{"all is lost", []Fault{{Kind: FaultLoss, From: "n1", To: "n2", Percent: 100}}, []string{"n1>n2"}},
		{"half is lost", []Fault{{Kind: FaultLoss, Percent: 50}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := l.Inflict(c.faults...); err != nil {
				t.Fatal(err)
			}
			if got, err := l.Faults(); err != nil || !reflect.DeepEqual(got, c.faults) {
				t.Errorf("the faults are %v, %v; want %v", got, err, c.faults)
			}
			for _, a := range []string{"n1", "n2", long, Client} {
				for _, b := range []string{"n1", "n2", long, Client} {
					down := slices.Contains(c.down, a+">"+b)
					if a == b || !down && len(c.down) > 1 && a != "n1" {
						continue
					}
					// An answer to ARP has to come back for a packet to leave: one way
					// down is both ways down for a pair that has not met.
					if !down && slices.Contains(c.down, b+">"+a) {
						continue
					}
					patience := 20 * time.Second // ARP asks once a second, and may lose too
					if down {
						patience = 500 * time.Millisecond
					}
					if got := l.reaches(t, a, b, 0, patience); got == down {
						t.Errorf("%s reaches %s: %v", a, b, got)
					}
				}
			}
			if err := l.Heal(); err != nil {
				t.Fatal(err)
			}
			if got, err := l.Faults(); err != nil || len(got) > 0 {
				t.Errorf("after healing: %v, %v", got, err)
			}
			if !l.reaches(t, "n1", "n2", 1, 20*time.Second) {
				t.Error("healed, n1 does not reach n2 with IPv6")
			}
		})
	}
	if err := l.Inflict(cut("n1", "n9")); err == nil || !strings.Contains(err.Error(), "n9") {
		t.Errorf("a fault of a node that is not there: %v", err)
	}
}

// A seat is on more networks than one: a fault may be on one of them, what is
// broken is seen and mended, and a network that nobody wants goes.
func TestNetworks(t *testing.T) {
	l := newLab(t, "n1", "n2")
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	want := []Network{{Name: "spare", Subnet: p("10.78.0.0/24")}, {Name: "six", Subnet: p("fd79::/64")}}
	join := func(key string, want ...Network) {
		t.Helper()
		for range 2 {
			if err := l.Join(key, "lan", want); err != nil {
				t.Fatal(err)
			}
			if err := l.Wire(key); err != nil {
				t.Fatal(err)
			}
			if words, err := l.Check(key); err != nil || len(words) > 0 {
				t.Fatalf("%s: %q, %v", key, words, err)
			}
			if words, err := l.Lacks(key, want); err != nil || len(words) > 0 {
				t.Fatalf("%s: %q, %v", key, words, err)
			}
		}
	}
	if words, err := l.Lacks("n1", want); err != nil || len(words) != 2 {
		t.Errorf("before it joins, n1 lacks %q, %v", words, err)
	}
	join("n1", want...)
	join("n2", want...)
	r, err := l.Record()
	if err != nil || !slices.Equal(r.Networks(), []string{"lan", "spare", "six"}) || len(r.Seats[Client].More) != 2 {
		t.Fatalf("the lab is %+v, %v", r, err)
	}
	if got := r.Seats["n2"].AllAddresses(); !slices.Equal(got, []netip.Prefix{p("10.77.0.2/24"), p("fd77::2/64"), p("10.78.0.2/24"), p("fd79::2/64")}) {
		t.Errorf("n2 is at %v", got)
	}
	const lan, spare, six = 0, 2, 3
	see := func(when string, up, down []int) {
		t.Helper()
		for _, which := range up {
			if !l.reaches(t, "n1", "n2", which, 20*time.Second) {
				t.Errorf("%s: n1 does not reach address %d of n2", when, which)
			}
		}
		for _, which := range down {
			if l.reaches(t, "n1", "n2", which, 500*time.Millisecond) {
				t.Errorf("%s: n1 reaches address %d of n2", when, which)
			}
		}
	}
	see("nothing is cut", []int{lan, spare, six}, nil)
	for _, c := range []struct {
		f        Fault
		up, down []int
	}{
		{Fault{Kind: FaultCut, From: "n1", To: "n2", Network: "spare"}, []int{lan, six}, []int{spare}},
		{Fault{Kind: FaultIsolate, From: "n2", Network: "lan"}, []int{spare, six}, []int{lan}},
		{Fault{Kind: FaultLoss, Percent: 100, Network: "six"}, []int{lan, spare}, []int{six}},
		{Fault{Kind: FaultCut, From: "n1", To: "n2"}, nil, []int{lan, spare, six}},
	} {
		if err := l.Inflict(c.f); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Faults(); err != nil || !slices.Equal(got, []Fault{c.f}) {
			t.Errorf("the faults are %v, %v; want %v", got, err, c.f)
		}
		see(c.f.String(), c.up, c.down)
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Unplug("n2", "spare"); err != nil {
		t.Fatal(err)
	}
	if words, err := l.Check("n2"); err != nil || !slices.Equal(words, []string{"link of spare: unplugged"}) {
		t.Errorf("unplugged: %q, %v", words, err)
	}
	see("unplugged", []int{lan, six}, []int{spare})
	if err := l.Plug("n2", "spare"); err != nil {
		t.Fatal(err)
	}
	see("plugged in", []int{spare}, nil)
	if err := l.Inflict(Fault{Kind: FaultCut, From: "n1", To: "n2", Network: "main"}); err == nil || !strings.Contains(err.Error(), "lan, spare, six") {
		t.Errorf("a cut of a network that is not there: %v", err)
	}
	if err := Do(r.Switch, func() error { return drop("br1") }); err != nil {
		t.Fatal(err)
	}
	if words, err := l.Check("n2"); err != nil || !slices.Equal(words, []string{"link of spare: link not on the bridge"}) {
		t.Errorf("without its bridge: %q, %v", words, err)
	}
	join("n1", want[1:]...) // n2 is on it still
	join("n2", want...)
	see("mended", []int{lan, six}, nil)
	join("n2", want[1:]...)
	if r, err = l.Record(); err != nil || !slices.Equal(r.Networks(), []string{"lan", "six"}) || len(r.Seats[Client].More) != 1 {
		t.Errorf("with a network less the lab is %+v, %v", r, err)
	}
	if err := Do(r.Switch, func() error {
		ports, err := net.Interfaces()
		for _, p := range ports {
			if strings.HasSuffix(p.Name, "+1") || p.Name == "br1" {
				t.Errorf("%s is left of the network that went", p.Name)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Loss loses about as much as it says.
func TestLoss(t *testing.T) {
	l := newLab(t, "n1", "n2")
	if err := l.Inflict(Fault{Kind: FaultLoss, From: "n1", To: "n2", Percent: 20}); err != nil {
		t.Fatal(err)
	}
	r, _ := l.Record()
	at := net.JoinHostPort(r.Seats["n2"].Address().String(), "9")
	var server net.PacketConn
	if err := Do(r.Seats["n2"].Namespace, func() (err error) {
		server, err = net.ListenPacket("udp", at)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := Dial(t.Context(), r.Seats["n1"].Namespace, "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const n = 1000
	came := 0
	// Windows of 10, so that no buffer is full; the last of a window may be lost,
	// so the wait for it ends by itself.
	buf := make([]byte, 16)
	for i := range n {
		if _, err := conn.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			for {
				server.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				if _, _, err := server.ReadFrom(buf); err != nil {
					break
				}
				came++
			}
		}
	}
	if came < n*70/100 || came > n*90/100 {
		t.Errorf("%d of %d packets came at a loss of 20%%", came, n)
	}
}

// What is taken away behind its back is seen and mended; processes go with
// their seat.
func TestDriftAndUnwire(t *testing.T) {
	l := newLab(t, "n1", "n2")
	r, _ := l.Record()
	ns := r.Seats["n1"].Namespace
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %v %s", args, err, out)
		}
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip program to break the lab with")
	}
	for _, c := range []struct {
		want string
		harm []string
	}{
		{"address 10.77.0.1 gone", []string{"-n", ns, "addr", "del", "10.77.0.1/24", "dev", "eth0"}},
		{"link down", []string{"-n", ns, "link", "set", "eth0", "down"}},
		{"link gone", []string{"-n", ns, "link", "del", "eth0"}},
		{"unplugged", []string{"-n", r.Switch, "link", "set", "n1", "down"}},
		{"link not on the bridge", []string{"-n", r.Switch, "link", "set", "n1", "nomaster"}},
		{"namespace gone", []string{"netns", "del", ns}},
		{"switch gone", []string{"netns", "del", r.Switch}},
	} {
		ip(c.harm...)
		if words, err := l.Check("n1"); err != nil || !slices.Contains(words, c.want) {
			t.Errorf("after ip %q: %q, %v", c.harm, words, err)
		}
		for _, key := range []string{"n1", "n2"} {
			if err := l.Wire(key); err != nil {
				t.Fatalf("after ip %q: %v", c.harm, err)
			}
		}
		for _, key := range []string{"n1", "n2"} {
			if words, err := l.Check(key); err != nil || len(words) > 0 {
				t.Errorf("mended after ip %q: %q, %v", c.harm, words, err)
			}
		}
		if !l.reaches(t, "n2", "n1", 0, 20*time.Second) {
			t.Errorf("mended after ip %q: n2 does not reach n1", c.harm)
		}
	}
	cmd := exec.Command("sleep", "1000")
	if err := Start(ns, cmd); err != nil {
		t.Fatal(err)
	}
	if pids, err := Processes(ns); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("processes of n1: %v, %v", pids, err)
	}
	go cmd.Wait()
	if err := l.Unwire("n1"); err != nil {
		t.Fatal(err)
	}
	if exists(ns) {
		t.Error("the namespace is still there")
	}
	if err := l.Unwire("n1"); err != nil {
		t.Errorf("unwired twice: %v", err)
	}
}

// A lab whose record is gone is in nobody's way.
func TestForgottenLab(t *testing.T) {
	l := newLab(t, "n1")
	if err := os.Remove(filepath.Join(l.dir, File)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Assign("n2", nets, netip.Addr{}, 0); err != nil {
		t.Fatal(err)
	}
	if left, _ := all(l.prefix()); len(left) > 0 {
		t.Errorf("of the forgotten lab %q are left", left)
	}
}

// The process itself stays where it is, whichever of its threads is taken.
func TestThreads(t *testing.T) {
	l := newLab(t, "n1")
	r, _ := l.Record()
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := Do(r.Seats["n1"].Namespace, func() error {
				if inside, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || inside == before {
					t.Errorf("not inside: %s, %v", inside, err)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("the process went from %s to %s, %v", before, after, err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		away := 0
		for _, thread := range threads {
			if at, err := os.Readlink(thread); err == nil && at != before {
				away++ // ends in a moment
			}
		}
		if away == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads stay away", away)
		}
	}
}

func TestAssign(t *testing.T) {
	l := At(t.TempDir())
	p := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	for _, c := range []struct {
		key    string
		nets   Networks
		wanted string
		nth    int
		want   string // "!" and words of an error
	}{
		{"n1", nets, "", 0, "10.77.0.1 fd77::1"},
		{"n3", nets, "", 2, "10.77.0.3 fd77::3"},
		{"n1", nets, "", 5, "10.77.0.1 fd77::1"}, // stays
		{"n2", nets, "10.77.0.3", 1, "!already the address of n3"},
		{"n2", nets, "10.77.0.0", 1, "!network's"},
		{"n2", nets, "10.77.0.255", 1, "!broadcast"},
		{"n2", nets, "10.78.0.1", 1, "!not in"},
		{"n2", nets, "10.77.0.4", 1, "10.77.0.4 fd77::2"},
		{"n4", nets, "", 3, "10.77.0.5 fd77::4"}, // the fourth is taken
		{"n2", nets, "10.77.0.9", 1, "10.77.0.9 fd77::2"},
		{"m1", Networks{p("10.9.0.0/29")}, "", 4, "10.9.0.5"},
		{"m2", Networks{p("10.9.0.0/29")}, "", 5, "!no free address"}, // the client has the last one
		{"n1", Networks{p("10.9.0.0/29")}, "", 0, "10.9.0.1"},         // another network
	} {
		wanted := netip.Addr{}
		if c.wanted != "" {
			wanted = netip.MustParseAddr(c.wanted)
		}
		s, err := l.Assign(c.key, c.nets, wanted, c.nth)
		if words, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%+v: %v, %v", c, s, err)
			}
			continue
		}
		var got []string
		for _, a := range s.Addresses {
			got = append(got, a.Addr().String())
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	r, err := l.Record()
	if err != nil || len(r.Seats[Client].Addresses) != 3 || r.Seats[Client].Address() != netip.MustParseAddr("10.77.0.254") {
		t.Errorf("the client's seat: %+v, %v", r.Seats[Client], err)
	}
}
