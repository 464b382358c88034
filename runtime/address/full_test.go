package address

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// A link that doesn't take what is sent, as one whose switch holds it up, keeps
// nobody from taking an address away.
func TestCloseOnAFullLink(t *testing.T) {
	a := addresstest.New(t).Host()
	var before *packet.Conn // what it has sent goes first, for a quarter of an hour
	var s *speaker
	var missing error
	a.Must(func() error {
		l, err := findLink(families[0].vip, -1, "")
		if err != nil {
			return err
		}
		slow := &netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       60, Limit: 1 << 30, Buffer: 65_000_000, // 60 bytes a second, and 249 at once
		}
		if missing = netlink.QdiscAdd(slow); missing != nil {
			return nil
		}
		if before, err = l.listen(families[0].vip); err == nil {
			s, err = newSpeaker(l, families[0].vip)
		}
		return err
	})
	if missing != nil {
		t.Skip("the kernel has no tbf to slow a link with: ", missing)
	}
	frame := append(append([]byte{}, broadcast...), s.link.mac...)
	frame = append(frame, 0x88, 0xb5)
	frame = append(frame, make([]byte, 200)...)
	for _, conn := range []*packet.Conn{before, s.conn} {
		for err := error(nil); !errors.Is(err, os.ErrDeadlineExceeded); err = s.link.send(conn, frame) {
			if err := errors.Join(err, conn.SetWriteDeadline(time.Now().Add(time.Second))); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer before.Close()
	if err := s.conn.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	s.ends.Go(s.announce)
	closed := make(chan struct{})
	go func() {
		s.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(addresstest.Patience):
		t.Error("the release waits for what can't be sent")
		s.conn.Close()
		<-closed
	}
}
