package rawio

import (
	"bytes"
	"io"
	"net"
	"os"
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

// What a timerfd tells is followed by one call each time, until the end.
func TestFollow(t *testing.T) {
	t.Parallel()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	defer r.Close()
	in, err := New(r)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	got, want := "", "abc"
	if _, err := w.WriteString(want[:1]); err != nil {
		t.Fatal(err)
	}
	err = in.Follow(buf, func() {
		got += string(buf[:1])
		if len(got) < len(want) {
			_, _ = w.WriteString(want[len(got):][:1])
		} else {
			w.Close()
		}
	})
	if err != io.EOF || got != want {
		t.Fatalf("got %q, %v", got, err)
	}
}
