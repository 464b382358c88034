package sim

import (
	"math/rand/v2"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

// An older disk: a backup of a node's data directory that was put back, or a
// snapshot of its host. What the node has promised since is known to others
// alone, so this fault comes when they can be asked, and nothing takes one of
// them away until the node has: more can't be protected (confdb/DESIGN.md).
// Their disks may be slow, links slower than usual, and clocks off.

// mild are the faults that come in such a time as well.
var mild = []string{"slow-disk", "double", "replay", "clock", "failing-start"}

func (w *world) quiet() bool { return w.now < w.faults.quiet }

// reachable tells whether all nodes run and hear each other.
func (w *world) reachable() bool {
	for _, h := range w.hosts {
		if a := h.agent; a == nil || a.paused || a.ending || h.suspended || h.disk.failing || h.leaving {
			return false
		}
		for _, cuts := range w.net.cut[h.index] {
			if cuts > 0 {
				return false
			}
		}
	}
	return w.net.loss == 0 && w.net.lag < 50*time.Millisecond
}

// putBack puts a node's disk back to an older state, while others' disks are so
// slow that they lack what it has acknowledged last.
func (w *world) putBack(rng *rand.Rand, h *host) {
	if w.cfg.Model != spec.MajorityNodeSet || w.quiet() || !w.whole() || !w.reachable() {
		return
	}
	server := h.server
	var past []snapshot
	for _, s := range h.disk.past {
		if h.single() && !raftdb.Holds(s.stored) {
			continue // a single node asks nobody, and its mark beside the directory is not simulated
		}
		if s.server == server && s.at < w.now-int64(500*time.Millisecond) {
			past = append(past, s)
		}
	}
	if len(past) == 0 {
		return
	}
	was := past[rng.IntN(len(past))]
	w.faults.quiet = w.now + int64(2500*time.Millisecond)
	other := w.hosts[(h.index+1+rng.IntN(len(w.hosts)-1))%len(w.hosts)]
	other.disk.slow = between(rng, 50*time.Millisecond, time.Second)
	w.ends(between(rng, 100*time.Millisecond, time.Second), func() { other.disk.slow = 0 })
	crash := between(rng, 20*time.Millisecond, 400*time.Millisecond)
	for range 1 + rng.IntN(8) {
		w.after(between(rng, 0, crash), func() {
			if l := w.leader(); l != nil {
				w.ops.submit(l, confdb.Command{KV: &confdb.KVWrite{Key: "key", Value: []byte(l.name)}}, nil)
			}
		})
	}
	machine, down := rng.IntN(2) == 0, between(rng, time.Millisecond, 400*time.Millisecond)
	w.after(crash, func() {
		if h.agent == nil || h.server != server || h.leaving || !w.faults.on {
			return
		}
		if machine { // the whole host's disk, so it boots
			h.killMonitors()
			clear(h.lastEpochs)
			h.hadFreezer = false
		}
		h.killAgent()
		h.disk.stored, h.disk.past = was.stored, nil
		h.tell("its disk is put back to what it was %v ago", time.Duration(w.now-was.at).Round(time.Millisecond))
		w.rep.PutBack++
		w.restartLater(h, down)
	})
}
