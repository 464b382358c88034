package libvirt

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestKnock: a guest that takes long to greet gets the time for it, one that has got
// its address is tried at once and often, whatever try hangs then, and an end is an end.
func TestKnock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		const got, up = time.Minute + 1234*time.Millisecond, 70 * time.Second
		var tries []time.Duration
		nobody := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		dial := func(ctx context.Context, network, at string) (net.Conn, error) {
			tries = append(tries, time.Since(begun))
			if time.Since(begun) < up {
				return nobody(ctx, network, at)
			}
			ours, theirs := net.Pipe()
			go func() {
				time.Sleep(25 * time.Second)
				_, _ = theirs.Write([]byte("SSH-2.0-slow\r\n")) // we may have left
				theirs.Close()
			}()
			return ours, nil
		}
		asked := make(chan struct{})
		time.AfterFunc(got, func() { close(asked) })
		if !knock(t.Context(), dial, "there:22", asked) {
			t.Fatal("a guest that greets after 25 s is given up")
		}
		first := slices.IndexFunc(tries, func(at time.Duration) bool { return at >= got })
		if first < 0 || first > 12 || tries[first] > got+300*time.Millisecond {
			t.Errorf("it has its address after %v, and was tried at %v", got, tries)
		}
		for i := first + 1; tries[i] < up; i++ {
			if tries[i]-tries[i-1] > 1100*time.Millisecond {
				t.Errorf("it was tried after %v, and again after %v", tries[i-1], tries[i])
			}
		}
		// 5, 10 and 20 s are not enough to greet, 40 are.
		if last := tries[len(tries)-4:]; last[0] < up || last[0] > up+1100*time.Millisecond || time.Since(begun) < last[3]+25*time.Second {
			t.Errorf("it was tried at %v, and has greeted by %v", tries, time.Since(begun))
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if knock(ctx, nobody, "there:22", make(chan struct{})) {
			t.Error("nobody has greeted")
		}
	})
}
