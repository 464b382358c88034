package monitor

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// A renewal comes without a word: the monitor sees it in time by itself, and
// the kernel's timer goes along.
func TestRenewalNeedsNoWord(t *testing.T) {
	t.Parallel()
	r := startRig(t, newDir(t))
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	first := r.renew(2 * time.Second)
	r.send(app("exec sleep 1000"))
	r.awaitState("a", spec.StateOnline)
	r.renew(time.Hour)
	r.p.mu.Lock()
	queued := len(r.p.queue)
	r.p.mu.Unlock()
	if queued != 0 {
		t.Fatal("a renewal was put in the queue")
	}
	after := first.Add(time.Second + 200*time.Millisecond) // stop_within, and some
	eventually(t, "the first lease over", func() bool { return boottime.Now() > after })
	// What had happened meanwhile comes before the answer to this.
	r.send(Order{Stop: &ResourceRef{"none", 1, "none"}})
	r.await("an answer", func(w Word) bool {
		if w.Changed != nil && w.Changed.Resource == "a" {
			t.Fatalf("under a renewed lease: %s", r.words())
		}
		return w.Changed != nil && w.Changed.Group == "none"
	})
}

func TestLookAgain(t *testing.T) {
	t.Parallel()
	ms := func(n int64) spec.Instant { return spec.Instant(n * int64(time.Millisecond)) }
	for _, c := range []struct{ now, end, want spec.Instant }{
		{ms(1000), ms(1600), ms(1150)},
		{ms(1000), ms(10000), ms(3250)},
		{ms(1000), ms(1040), ms(1020)}, // not ever more often
		{ms(1000), ms(1010), ms(1010)}, // never past the end
		{ms(1000), ms(900), ms(900)},
		{ms(1000), 0, 0},
	} {
		if got := lookAgain(c.now, c.end); got != c.want {
			t.Errorf("at %d, lease until %d: looks at %d, want %d", c.now, c.end, got, c.want)
		}
	}
}

// Both ends of a board are one; the monitor's can't be written, and nobody can
// cut it off under the other.
func TestBoard(t *testing.T) {
	t.Parallel()
	b, file, err := newBoard()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	if got := b.read(); got != 0 {
		t.Errorf("a new one says %d", got)
	}
	if was := b.write(5); was != 0 || b.read() != 5 {
		t.Errorf("was %d, is %d", was, b.read())
	}
	other, err := openBoard(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	b.write(1 << 40)
	if got := other.read(); got != 1<<40 {
		t.Errorf("the other end says %d", got)
	}
}
