package rawio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func datagrams(t *testing.T, c *net.UDPConn) *Datagrams {
	t.Helper()
	d, err := NewDatagrams(c, 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestCloseWakesTheReader(t *testing.T) {
	t.Parallel()
	in := datagrams(t, listen(t, "127.0.0.1:0"))
	ended := make(chan error)
	go func() { ended <- in.Follow(func([]byte, netip.AddrPort, int64) {}) }()
	in.Close()
	in.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("it ended by %v", err)
	}
	to := To(netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("127.0.0.1:9"))
	if err := in.SendTo([]byte("x"), &to); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("sent by a closed socket: %v", err)
	}
	if err := in.Hold(true); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("held a closed socket: %v", err)
	}
	in.Collect(Batch, func([]byte, netip.AddrPort, int64) { t.Error("got something from a closed socket") })
}

func TestDatagrams(t *testing.T) {
	t.Parallel()
	for _, local := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		a, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)))
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
			t.Logf("%s: this host has no IPv6", local)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		bound := a.LocalAddr().(*net.UDPAddr).AddrPort()
		near := "127.0.0.1:0"
		if local == "[::1]:0" {
			near = local
		}
		peer, in := listen(t, near), datagrams(t, a)
		to := To(peer.LocalAddr().(*net.UDPAddr).AddrPort(), bound)
		if err := in.SendTo([]byte("there"), &to); err != nil {
			t.Fatalf("%s: %v", local, err)
		}
		buf := make([]byte, 16)
		n, from, err := peer.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:n]) != "there" || from.Port() != bound.Port() {
			t.Fatalf("%s: got %q from %v, %v", local, buf[:n], from, err)
		}
		// More than a call takes, one of them too long, all there before the first call.
		const sent = 2*Batch + 3
		for i := range sent {
			word := fmt.Sprint("back", i)
			if i == 1 {
				word = "0123456789abcdefgh"
			}
			if _, err := peer.WriteToUDPAddrPort([]byte(word), from); err != nil {
				t.Fatal(err)
			}
		}
		got := 0
		ended := make(chan error)
		go func() {
			ended <- in.Follow(func(packet []byte, from netip.AddrPort, _ int64) {
				want := fmt.Sprint("back", got)
				switch {
				case got == 1:
					want = "0123456789abcdef"
				case got == sent: // came once all others were read
					want = "last"
				}
				if string(packet) != want || from != peer.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Errorf("%s: got %q from %v, want %q", local, packet, from, want)
				}
				switch got++; got {
				case sent:
					if _, err := peer.WriteToUDPAddrPort([]byte("last"), netip.AddrPortFrom(from.Addr(), bound.Port())); err != nil {
						t.Error(err)
					}
				case sent + 1:
					go in.Close() // it waits for who reads
				}
			})
		}()
		if err := <-ended; !errors.Is(err, net.ErrClosed) || got != sent+1 {
			t.Fatalf("%s: got %d of %d, %v", local, got, sent+1, err)
		}
	}
}

// What comes to a held socket wakes nobody, and is there to be collected, with a
// stamp; once it is let go, what waits wakes at once.
func TestHold(t *testing.T) {
	t.Parallel()
	a := listen(t, "127.0.0.1:0")
	bound := a.LocalAddr().(*net.UDPAddr)
	peer, in := listen(t, "127.0.0.1:0"), datagrams(t, a)
	say := func(what string) {
		t.Helper()
		if _, err := peer.WriteToUDP([]byte(what), bound); err != nil {
			t.Fatal(err)
		}
	}
	hold := func(on bool) {
		t.Helper()
		if err := in.Hold(on); err != nil {
			t.Fatal(err)
		}
	}
	woken := make(chan string)
	ended := make(chan error)
	go func() {
		ended <- in.Follow(func(packet []byte, _ netip.AddrPort, _ int64) { woken <- string(packet) })
	}()
	say("first")
	if got := <-woken; got != "first" {
		t.Fatalf("woken by %q", got)
	}
	told := false // the kernel stamped what came, and not when it was read, as it does until it has begun with that
	for round := 0; round < 3 || round < 1000 && !told; round++ {
		if round > 3 {
			time.Sleep(time.Millisecond)
		}
		hold(true)
		hold(true)
		before := time.Now().UnixNano()
		const many = Batch + 2
		for i := range many {
			say(fmt.Sprint(i))
		}
		after := time.Now().UnixNano()
		got := 0
		collect := func(packet []byte, from netip.AddrPort, stamp int64) {
			if string(packet) != fmt.Sprint(got) || from.Port() != peer.LocalAddr().(*net.UDPAddr).AddrPort().Port() {
				t.Errorf("collected %q from %v, want %d", packet, from, got)
			}
			if stamp < before || stamp > time.Now().UnixNano() {
				t.Errorf("stamped %d, sent from %d to %d", stamp, before, after)
			}
			told = told || stamp <= after
			got++
		}
		all := true
		for got == 0 { // who follows is on its way out yet
			all = in.Collect(Batch, collect)
		}
		if all || got != Batch {
			t.Fatalf("collected %d of %d, or all; want %d at a time", got, many, Batch)
		}
		if !in.Collect(Batch, collect) || got != many {
			t.Fatalf("collected %d of %d, or more was left", got, many)
		}
		word := fmt.Sprint("late", round)
		say(word)
		hold(false)
		if got := <-woken; got != word {
			t.Fatalf("woken by %q, want %q: what came while it was held wakes when it is let go", got, word)
		}
		say("again")
		if got := <-woken; got != "again" {
			t.Fatalf("woken by %q", got)
		}
	}
	if !told {
		t.Error("nothing was stamped before it was read")
	}
	in.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("it ended by %v", err)
	}
}

// A held socket keeps what a round of a large cluster brings, though a datagram may
// count for much more than its bytes.
func TestHoldKeepsARound(t *testing.T) {
	t.Parallel()
	a := listen(t, "127.0.0.1:0")
	bound := a.LocalAddr().(*net.UDPAddr)
	peer, in := listen(t, "127.0.0.1:0"), datagrams(t, a)
	if err := in.Hold(true); err != nil {
		t.Fatal(err)
	}
	const many = 150 // 2304 bytes each, as the kernel counts
	for range many {
		if _, err := peer.WriteToUDP(make([]byte, 1400), bound); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	if in.Collect(2*many, func([]byte, netip.AddrPort, int64) { got++ }); got != many {
		t.Errorf("a held socket kept %d datagrams of %d", got, many)
	}
}

// A peer whose port is closed costs one error, and no datagram of others.
func TestRefusal(t *testing.T) {
	t.Parallel()
	dead := listen(t, "127.0.0.1:0")
	gone := dead.LocalAddr().(*net.UDPAddr)
	dead.Close()
	c, err := net.DialUDP("udp", nil, gone) // only a connected socket hears of it
	if err != nil {
		t.Fatal(err)
	}
	local := c.LocalAddr().(*net.UDPAddr).AddrPort()
	in := datagrams(t, c)
	to := To(gone.AddrPort(), local)
	if err := in.SendTo([]byte("x"), &to); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- in.Follow(func([]byte, netip.AddrPort, int64) {}) }()
	again, err := net.ListenUDP("udp", gone)
	if err != nil {
		t.Skip("another has the port by now: ", err)
	}
	defer again.Close()
	got := make(chan string, 1)
	go func() {
		buf := make([]byte, 16)
		n, _, _ := again.ReadFromUDPAddrPort(buf)
		got <- string(buf[:n])
	}()
	for sent := false; !sent; { // the refusal is an error of some call
		sent = in.SendTo([]byte("y"), &to) == nil
	}
	if s := <-got; s != "y" {
		t.Fatalf("got %q", s)
	}
	in.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("it ended by %v", err)
	}
}
