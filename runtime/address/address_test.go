package address

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// The test binary is also a process that holds addresses, in a namespace.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "holder" {
		os.Exit(holderMain())
	}
	os.Exit(m.Run())
}

// holderMain holds and releases as it is told, one JSON value a line.
func holderMain() int {
	h := New(func(level, text string, args map[string]any) { fmt.Fprintln(os.Stderr, level, text, args) })
	held := map[string]*Held{}
	in := json.NewDecoder(os.Stdin)
	out := make(chan answer)
	go func() {
		e := json.NewEncoder(os.Stdout)
		for a := range out {
			e.Encode(a)
		}
	}()
	for {
		var q question
		if err := in.Decode(&q); err != nil {
			return 0
		}
		var err error
		pid := 0
		switch q.Do {
		case "hold":
			var x *Held
			x, err = h.Hold(context.Background(), Request{Address: netip.MustParseAddr(q.Address), Bits: q.Bits, Interface: q.Interface, Probe: q.Probe,
				Record: func(l Left) error {
					if l.Device == "" || l.Index == 0 || l.Namespace == 0 {
						return fmt.Errorf("nothing to record: %+v", l)
					}
					return nil
				}})
			if err == nil {
				held[q.Address] = x
				go func() {
					<-x.Lost()
					out <- answer{Lost: q.Address, Error: x.Check().Error()}
				}()
			}
		case "release":
			held[q.Address].Release()
		case "check":
			err = held[q.Address].Check()
		case "write": // to a disk that hangs
			err = os.WriteFile(q.Address, []byte("x"), 0o600)
		case "exec": // a program that outlives this process, started as any thread may
			sleep := exec.Command("sleep", "1000")
			if err = sleep.Start(); err == nil {
				pid = sleep.Process.Pid
			}
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		out <- answer{Error: text, PID: pid}
	}
}

type question struct {
	Do, Address string
	Bits        int
	Interface   string
	Probe       time.Duration
}

type answer struct {
	Lost, Error string
	PID         int
}

// process is such a process.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      *json.Encoder
	answers chan answer
	lost    chan answer
}

func startHolder(t testing.TB, h *addresstest.Host) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self, "holder"), answers: make(chan answer, 16), lost: make(chan answer, 16)}
	p.cmd.Stderr = os.Stderr
	in, err1 := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	h.Must(p.cmd.Start)
	p.in = json.NewEncoder(in)
	go func() {
		defer close(p.answers)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var a answer
			if json.Unmarshal(lines.Bytes(), &a) != nil {
				continue
			}
			if a.Lost != "" {
				p.lost <- a
			} else {
				p.answers <- a
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

func (p *process) ask(q question) string {
	p.t.Helper()
	if err := p.in.Encode(q); err != nil {
		p.t.Fatal(err)
	}
	select {
	case a, ok := <-p.answers:
		if !ok {
			p.t.Fatalf("it ended instead of: %+v", q)
		}
		if a.PID != 0 {
			p.t.Cleanup(func() { _ = unix.Kill(a.PID, unix.SIGKILL) })
		}
		return a.Error
	case <-time.After(addresstest.Patience):
		p.t.Fatalf("no answer to %+v", q)
	}
	return ""
}

func (p *process) must(q question) {
	p.t.Helper()
	if err := p.ask(q); err != "" {
		p.t.Fatalf("%+v: %s", q, err)
	}
}

func (p *process) signal(s unix.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(addresstest.Patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not so after %s: %s", addresstest.Patience, what)
}

// families are an address of each, to move.
var families = []struct {
	name string
	vip  netip.Addr
}{{"ipv4", netip.MustParseAddr("10.99.0.50")}, {"ipv6", netip.MustParseAddr("fd99::50")}}

const probe = 25 * time.Millisecond

// The life of an address on two hosts, as a client sees it: it answers, moves
// when its holder is killed, though stopped before, and moves back by order.
func TestMoves(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			lan := addresstest.New(t)
			a, b, client := lan.Host(), lan.Host(), lan.Host()
			events := addresstest.Events(t, a, b)
			one, two := startHolder(t, a), startHolder(t, b)
			hold := question{Do: "hold", Address: f.vip.String(), Probe: probe}

			one.must(hold)
			if !client.Ping(f.vip, time.Second) {
				t.Fatal("it doesn't answer")
			}
			if got := client.Neighbour(f.vip); got.String() != a.MAC().String() {
				t.Fatalf("the client has %s, want %s", got, a.MAC())
			}
			// Its holder is there: nobody else gets it, and is told whose it is.
			if err := two.ask(hold); !strings.Contains(err, a.MAC().String()+" answered for it on eth0") {
				t.Fatalf("error %q, want that %s answered", err, a.MAC())
			}
			if b.Has(f.vip) {
				t.Fatal("added all the same")
			}
			// A program that the holder started keeps nothing of it.
			one.must(question{Do: "exec"})
			one.signal(unix.SIGSTOP)
			if !client.Ping(f.vip, time.Second) {
				t.Error("a stopped holder's address is its own still")
			}
			one.signal(unix.SIGKILL)
			await(t, "gone from the first host", func() bool { return !a.Has(f.vip) })
			if left := a.Devices(namePrefix); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			two.must(hold)
			await(t, "the client's cache moves by being told", func() bool { return client.Neighbour(f.vip).String() == b.MAC().String() })
			if !client.Ping(f.vip, time.Second) {
				t.Fatal("it doesn't answer after the move")
			}
			two.must(question{Do: "release", Address: f.vip.String()})
			if b.Has(f.vip) {
				t.Fatal("there after its release")
			}
			three := startHolder(t, a)
			three.must(hold)
			if !client.Ping(f.vip, time.Second) {
				t.Fatal("it doesn't answer after the move back")
			}
			// No event of one's arrival before the other's departure.
			at := ""
			for range 5 {
				var e addresstest.Event
				for e.Address != f.vip {
					select {
					case e = <-events:
					case <-time.After(addresstest.Patience):
						t.Fatal("too few events")
					}
				}
				switch host := e.Host.IPv4().String(); {
				case e.Added && at == "":
					at = host
				case !e.Added && at == host:
					at = ""
				default:
					t.Fatalf("address on %q, then on %s: added %v", at, host, e.Added)
				}
			}
		})
	}
}

// A client that asks while nobody has the address, as in the middle of a move,
// would ask again a second later only: it is told as soon as there is an owner.
func TestAskedTooEarly(t *testing.T) {
	lan := addresstest.New(t)
	a, client := lan.Host(), lan.Host()
	p := startHolder(t, a)
	for _, f := range families {
		client.AskOnce(f.vip)
		p.must(question{Do: "hold", Address: f.vip.String(), Probe: probe})
		await(t, f.name+": the client is told", func() bool { return client.Neighbour(f.vip).String() == a.MAC().String() })
	}
}

// What a host may not have, and what it lacks.
func TestRefused(t *testing.T) {
	lan := addresstest.New(t)
	a, b := lan.Host(), lan.Host()
	p := startHolder(t, a)
	for _, tt := range []struct {
		name string
		q    question
		want string
	}{
		{"another host's own address", question{Address: b.IPv4().String(), Probe: probe}, b.MAC().String() + " answered"},
		{"the same, IPv6", question{Address: b.IPv6().String(), Probe: probe}, b.MAC().String() + " answered"},
		{"this host's own address", question{Address: a.IPv4().String()}, "this host has it on interface eth0 already"},
		{"another subnet", question{Address: "10.98.0.1"}, "no interface of this node has an address in the subnet of 10.98.0.1; it has eth0 10.99.0.1/24"},
		{"another subnet by its prefix", question{Address: "10.99.0.200", Bits: 27}, "in the subnet of 10.99.0.192/27"},
		{"no such interface", question{Address: "10.98.0.1", Interface: "eth7"}, "no interface eth7"},
		{"loopback", question{Address: "::1"}, "loopback"},
		{"link-local", question{Address: "fe80::1"}, "link-local"},
		{"multicast", question{Address: "224.0.0.1"}, "no address that a host can have"},
	} {
		tt.q.Do = "hold"
		if got := p.ask(tt.q); !strings.Contains(got, tt.want) {
			t.Errorf("%s: error %q, want %q in it", tt.name, got, tt.want)
		}
	}
	p.must(question{Do: "hold", Address: "10.98.0.1", Interface: "eth0", Probe: probe})
	if !a.Has(netip.MustParseAddr("10.98.0.1")) {
		t.Error("an interface by its name: not added")
	}
}

// An address that goes away by other hands, or whose link does, is told.
func TestLost(t *testing.T) {
	lan := addresstest.New(t)
	a, client := lan.Host(), lan.Host()
	p := startHolder(t, a)
	v4, v6 := families[0].vip, families[1].vip
	p.must(question{Do: "hold", Address: v4.String()})
	p.must(question{Do: "hold", Address: v6.String()})
	lost := func(of netip.Addr, want string) {
		t.Helper()
		select {
		case got := <-p.lost:
			if got.Lost != of.String() || !strings.Contains(got.Error, want) {
				t.Fatalf("%+v, want %s lost: %s", got, of, want)
			}
		case <-time.After(addresstest.Patience):
			t.Fatalf("%s is not told as lost", of)
		}
	}
	a.Remove(v4)
	lost(v4, "somebody took it away")
	p.must(question{Do: "check", Address: v6.String()})
	p.must(question{Do: "release", Address: v4.String()}) // what is gone already is released as well
	p.must(question{Do: "hold", Address: v4.String()})

	// The device is set down, then removed: the next start mends that.
	device := a.Devices(namePrefix)[0]
	for _, by := range []struct {
		change func(netlink.Link) error
		want   string
	}{{netlink.LinkSetDown, "is down: somebody set it so"}, {netlink.LinkDel, "is gone: somebody removed it"}} {
		a.Device(device, by.change)
		for range 2 {
			select {
			case got := <-p.lost:
				if !strings.Contains(got.Error, by.want) {
					t.Fatalf("%+v, want %s", got, by.want)
				}
			case <-time.After(addresstest.Patience):
				t.Fatalf("not told: %s", by.want)
			}
		}
		for _, vip := range []netip.Addr{v4, v6} {
			p.must(question{Do: "release", Address: vip.String()})
			p.must(question{Do: "hold", Address: vip.String()})
			if !client.Ping(vip, time.Second) {
				t.Fatalf("%s doesn't answer after: %s", vip, by.want)
			}
		}
	}

	// A cable that is back at once loses nothing, and is told of anew.
	lan.Port(a, false)
	lan.Port(a, true)
	client.Forget()
	if !client.Ping(v6, time.Second) {
		t.Error("after its link was away it doesn't answer")
	}
	lan.Port(a, false)
	for range 2 {
		select {
		case got := <-p.lost:
			if !strings.Contains(got.Error, "interface eth0 is down or has no carrier for 500ms") {
				t.Fatalf("%+v", got)
			}
		case <-time.After(addresstest.Patience):
			t.Fatal("the link's loss is not told")
		}
	}
	p.must(question{Do: "release", Address: v4.String()})
	if got := p.ask(question{Do: "hold", Address: v4.String()}); !strings.Contains(got, "no carrier") {
		t.Errorf("error %q, want that there is no carrier", got)
	}
}

// Where the kernel is told not to answer ARP for another device's address, the
// holder does.
func TestQuietKernel(t *testing.T) {
	lan := addresstest.New(t)
	a, client := lan.Host(), lan.Host()
	a.Must(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0)
	})
	p := startHolder(t, a)
	vip := families[0].vip
	p.must(question{Do: "hold", Address: vip.String()})
	client.Forget()
	if !client.Ping(vip, time.Second) {
		t.Fatal("it doesn't answer")
	}
}
