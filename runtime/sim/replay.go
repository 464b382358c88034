package sim

import (
	"math/rand/v2"
	"time"

	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// tap is a frame that someone on the network has recorded.
type tap struct {
	from, to *host
	frame    heartbeat.Frame
}

const maxTaps = 3000

// maxTape is how many of the first frames to an agent someone has kept.
const maxTape = 300

// record keeps some frames, of long ago too.
func (w *world) record(from, to *host, f heartbeat.Frame) {
	if !w.faults.on || !w.chance(0.1) {
		return
	}
	t := tap{from, to, cloneFrame(f)}
	if len(w.taps) < maxTaps {
		w.taps = append(w.taps, t)
	} else {
		w.taps[w.rng.IntN(maxTaps)] = t
	}
}

// replay plays some of the recorded frames to one host for a while, as they
// were. What the seal remembers is refused.
func (w *world) replay(rng *rand.Rand, to *host) {
	if len(w.taps) == 0 {
		return
	}
	at := time.Duration(0)
	for range 100 {
		t := w.taps[rng.IntN(len(w.taps))]
		if t.to != to {
			continue
		}
		at += between(rng, 0, 50*time.Millisecond)
		w.after(at, t.play)
	}
}

func (t tap) play() {
	id := frameID{t.frame.Incarnation, t.frame.Seq}
	if a := t.to.agent; a != nil && !t.to.suspended && !a.heard[id] {
		a.heard[id] = true
		a.input(member.FrameIn{From: t.from.endpoint, Frame: cloneFrame(t.frame)})
	}
}

// recording cuts a host off, has it start anew, and plays to it what its last
// life heard from its start on, in order and at that pace: all of it is genuine
// but for when it comes.
func (w *world) recording(rng *rand.Rand, h *host) {
	if len(h.tape) == 0 {
		return
	}
	h.killMonitor()
	h.killAgent()
	w.partition(rng, h, cutAlone)
	tape := h.tape
	pace := between(rng, 10*time.Millisecond, 50*time.Millisecond)
	w.after(between(rng, 20*time.Millisecond, 500*time.Millisecond), func() {
		h.startAgent()
		h.tell("hears %d frames of its last life", len(tape))
		for i, t := range tape {
			w.after(time.Duration(i)*pace, t.play)
		}
	})
}
