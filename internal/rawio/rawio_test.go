package rawio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStream(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	in, err := New(b.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	out, err := New(a.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	// More than the socket holds: the writer has to wait for the reader.
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	got := make(chan []byte)
	go func() {
		data, _ := io.ReadAll(in)
		got <- data
	}()
	if n, err := out.Write(want); err != nil || n != len(want) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	a.Close()
	if data := <-got; !bytes.Equal(data, want) {
		t.Fatalf("got %d bytes, want %d", len(data), len(want))
	}
	if _, err := out.Write([]byte("x")); err == nil {
		t.Fatal("a closed connection was written to")
	}
}

func TestCloseWakesTheReader(t *testing.T) {
	t.Parallel()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewDatagrams(c, 16)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- in.Follow(func([]byte, netip.AddrPort) {}) }()
	c.Close()
	if err := <-ended; err == nil {
		t.Fatal("read from a closed socket")
	}
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
		defer a.Close()
		bound := a.LocalAddr().(*net.UDPAddr).AddrPort()
		peer, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if local == "[::1]:0" {
			peer.Close()
			peer, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::1]:0")))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		raw, err := New(a)
		if err != nil {
			t.Fatal(err)
		}
		to := To(peer.LocalAddr().(*net.UDPAddr).AddrPort(), bound)
		if err := raw.SendTo([]byte("there"), &to); err != nil {
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
		in, err := NewDatagrams(a, 16)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		ended := make(chan error)
		go func() {
			ended <- in.Follow(func(packet []byte, from netip.AddrPort) {
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
					go a.Close() // it waits for who reads
				}
			})
		}()
		if err := <-ended; !errors.Is(err, net.ErrClosed) || got != sent+1 {
			t.Fatalf("%s: got %d of %d, %v", local, got, sent+1, err)
		}
	}
}

// A peer whose port is closed costs one error, and no datagram of others.
func TestRefusal(t *testing.T) {
	t.Parallel()
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	dead, other := listen(), listen()
	defer other.Close()
	gone := dead.LocalAddr().(*net.UDPAddr)
	dead.Close()
	c, err := net.DialUDP("udp", nil, gone) // only a connected socket hears of it
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := NewDatagrams(c, 16)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- in.Follow(func([]byte, netip.AddrPort) {}) }()
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
		_, err := c.Write([]byte("y"))
		sent = err == nil
	}
	if s := <-got; s != "y" {
		t.Fatalf("got %q", s)
	}
	c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("it ended by %v", err)
	}
}
