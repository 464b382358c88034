package libvirt

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestKnock: a guest that takes long to greet gets the time for it, one that has
// got its address is tried at once, and an end is an end.
func TestKnock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var tries []time.Duration
		nobody := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		dial := func(ctx context.Context, network, at string) (net.Conn, error) {
			tries = append(tries, time.Since(begun))
			if time.Since(begun) < time.Minute {
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
		time.AfterFunc(time.Minute, func() { close(asked) })
		if !knock(t.Context(), dial, "there:22", asked) {
			t.Fatal("a guest that greets after 25 s is given up")
		}
		// 5, 10 and 20 s are not enough, 40 are.
		last := tries[len(tries)-4:]
		if last[0] < time.Minute || last[0] > time.Minute+5*time.Second || len(tries) > 20 || time.Since(begun) < last[3]+25*time.Second {
			t.Errorf("it was tried at %v, and has greeted by %v", tries, time.Since(begun))
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if knock(ctx, nobody, "there:22", make(chan struct{})) {
			t.Error("nobody has greeted")
		}
	})
}
