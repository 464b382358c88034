package address

import (
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/packet"

	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// An address is announced again and again, as docs/runtime.md says, and from the
// beginning once its link is back.
func TestAnnouncedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &speaker{again: make(chan struct{}, 1), quit: make(chan struct{})}
		began := time.Now() // the first one is run's
		var at []time.Duration
		s.ends.Go(func() { s.repeat(func() { at = append(at, time.Since(began)) }) })
		see := func(want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(at, want) {
				t.Errorf("announced at %v, want %v", at, want)
			}
			began, at = time.Now(), nil
		}
		const ms = time.Millisecond
		time.Sleep(time.Minute)
		see(100*ms, 300*ms, 1000*ms, 3000*ms, 10000*ms)
		s.restart()
		time.Sleep(2 * time.Second)
		see(0, 100*ms, 300*ms, 1000*ms)
		s.restart() // while it is at it
		time.Sleep(time.Minute)
		see(0, 100*ms, 300*ms, 1000*ms, 3000*ms, 10000*ms)
		close(s.quit)
		s.ends.Wait()
	})
}

// What a neighbour hears: four announcements within the first second, unasked, and
// more when the link was away.
func TestNeighboursHearIt(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			lan := addresstest.New(t)
			a, neighbour := lan.Host(), lan.Host()
			var l link
			var conn *packet.Conn
			neighbour.Must(func() (err error) {
				if l, err = findLink(f.vip, -1, ""); err == nil {
					conn, err = l.listen(f.vip)
				}
				return err
			})
			defer conn.Close()
			// heard waits for n announcements, of ARP the replies.
			heard := func(n int, patience time.Duration) bool {
				t.Helper()
				if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 512)
				for n > 0 {
					size, _, err := conn.ReadFrom(buf)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						return false
					}
					if err != nil {
						t.Fatal(err)
					}
					ask, is4 := readARP(buf[:size])
					tell, is6 := readDiscovery(buf[:size])
					if is4 && ask.op == arpReply && ask.senderIP == f.vip && ask.targetIP == f.vip && ask.sender.String() == a.MAC().String() ||
						is6 && tell.kind == neighbourAdvertisement && tell.flags == flagOverride && tell.target == f.vip && tell.link.String() == a.MAC().String() {
						n--
					}
				}
				return true
			}
			startHolder(t, a).must(question{Do: "hold", Address: f.vip.String(), Probe: probe})
			if !heard(4, addresstest.Patience) {
				t.Fatal("four announcements did not come")
			}
			// Two are still due, at 3 and 10 s: the third is one too many, but for the link.
			for end := time.Now().Add(addresstest.Patience); ; {
				lan.Port(a, false)
				time.Sleep(50 * time.Millisecond) // the holder has to see it; if it didn't, once more
				lan.Port(a, true)
				if heard(3, 2*time.Second) {
					break
				}
				if time.Now().After(end) {
					t.Fatal("its link was away and is back, and it is not announced anew")
				}
			}
		})
	}
}
