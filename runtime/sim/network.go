package sim

import (
	"time"
)

// network carries frames and streams between hosts, one way each: cut, slow,
// lossy, doubling and reordering where faults say so.
type network struct {
	cut    [][]int // [from][to]: by how many faults
	loss   float64 // of frames and of stream messages
	double float64 // how many come again later
	lag    time.Duration
}

func (n *network) init(nodes int) {
	n.cut = make([][]int, nodes)
	for i := range n.cut {
		n.cut[i] = make([]int, nodes)
	}
}

// grow makes room for one more host.
func (n *network) grow() {
	for i := range n.cut {
		n.cut[i] = append(n.cut[i], 0)
	}
	n.cut = append(n.cut, make([]int, len(n.cut)+1))
}

func (n *network) heal() {
	for _, row := range n.cut {
		clear(row)
	}
	n.loss, n.double, n.lag = 0, 0, 0
}

// send lets deliver happen at the other host after a delay, or never.
func (w *world) send(from, to int, deliver func()) {
	if w.net.cut[from][to] > 0 || w.net.loss > 0 && w.chance(w.net.loss) {
		return
	}
	pass := func() {
		if w.net.cut[from][to] == 0 { // cut while under way
			deliver()
		}
	}
	delay := w.between(30*time.Microsecond, 400*time.Microsecond)
	if w.net.lag > 0 {
		delay += w.between(0, w.net.lag) // uneven lag reorders
	}
	w.after(delay, pass)
	if w.net.double > 0 && w.chance(w.net.double) {
		w.after(delay+w.between(0, 300*time.Millisecond), pass) // a late double
	}
}
