package rawio

import (
	"bytes"
	"errors"
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
	raw, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, _, err := raw.ReceiveFrom(make([]byte, 16))
		ended <- err
	}()
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
		if _, err := peer.WriteToUDPAddrPort([]byte("back"), from); err != nil {
			t.Fatal(err)
		}
		n, from, err = raw.ReceiveFrom(buf)
		if want := peer.LocalAddr().(*net.UDPAddr).AddrPort(); err != nil || string(buf[:n]) != "back" || from != want {
			t.Fatalf("%s: got %q from %v, want it from %v, %v", local, buf[:n], from, want, err)
		}
	}
}
