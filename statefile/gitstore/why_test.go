package gitstore

import (
	"testing"
	"time"
)

// Whether the lock is ours is told while a write is on its way, which may take long:
// an apply asks before each thing that it does.
func TestWhyDuringAWrite(t *testing.T) {
	srv := serve(t)
	s := srv.open(t, keys(t))
	l := take(t, s)
	reached, free := make(chan struct{}), make(chan struct{})
	srv.set(func(kind string, _ int) fault {
		if kind == doWrite {
			close(reached)
			<-free
		}
		return sound
	})
	written, why := make(chan error, 1), make(chan error, 1)
	go func() { written <- l.Append(begin("r1")) }()
	<-reached
	go func() { why <- l.Why() }()
	select {
	case err := <-why:
		do(t, err)
	case <-time.After(20 * time.Second):
		t.Error("nobody tells until the write is over")
	}
	close(free)
	do(t, <-written)
	srv.set(nil)
	do(t, l.Release())
}
