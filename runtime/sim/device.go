package sim

import (
	"math/rand/v2"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// device is the quorum device of model single_quorum. All hosts see it, each by a
// path of its own. What an operation reads or writes, it does block by block, at
// any moments between its begin and its end; operations overtake each other, of
// one host too.
type device struct {
	blocks map[int64][]byte
	path   // what goes wrong for every host
}

// path is what goes wrong on the way between hosts and the device.
type path struct {
	gone  bool          // it answers with errors
	hangs bool          // it doesn't answer until it is mended
	slow  time.Duration // added to each operation, at most
	tail  bool          // now and then ten times as much
	late  time.Duration // an operation begins so much after it was asked for, at most, now and then
	hung  []func()
}

const deviceBlock = 4096

// operate carries out an operation of an agent's member.
func (w *world) operate(a *agent, op confdb.DeviceOp) {
	d, h := &w.device, a.h
	begin, took := time.Duration(0), w.between(100*time.Microsecond, 6*time.Millisecond)
	for _, p := range [...]*path{&d.path, &h.path} {
		if p.hangs {
			p.hung = append(p.hung, func() { w.operate(a, op) })
			return
		}
		if p.slow > 0 {
			took += w.between(0, p.slow)
			if p.tail && w.chance(0.1) {
				took += w.between(0, 10*p.slow)
			}
		}
		if p.late > 0 && w.chance(0.5) { // the process was paused between its decision and the call
			begin += w.between(0, p.late)
		}
	}
	moment := func() time.Duration {
		if n := w.rng.IntN(8); n == 0 {
			return begin
		} else if n == 1 {
			return begin + took - 1
		}
		return begin + w.between(0, took)
	}
	r := confdb.DeviceResult{ID: op.ID}
	switch {
	case d.gone || h.path.gone:
		r.Err = "simulated: input/output error"
	case op.Data != nil:
		for at := 0; at < len(op.Data); at += deviceBlock {
			b := make([]byte, deviceBlock)
			copy(b, op.Data[at:])
			n := (op.Offset + int64(at)) / deviceBlock
			w.after(moment(), func() {
				// The kernel keeps a dead agent's directory locked until its writes
				// are over: they are done before the next one starts, or never.
				if h.agent == a {
					d.blocks[n] = b
				}
			})
		}
	default:
		r.Data = make([]byte, op.Length)
		for at := 0; at < op.Length; at += deviceBlock {
			n := (op.Offset + int64(at)) / deviceBlock
			if d.blocks[n] == nil && (n > 8 || op.Length <= deviceBlock) {
				continue // never written
			}
			part := r.Data[at:min(at+deviceBlock, op.Length)]
			w.after(moment(), func() { copy(part, d.blocks[n]) })
		}
	}
	var done func()
	done = func() {
		switch {
		case h.agent != a:
		case h.suspended:
			h.atResume = append(h.atResume, done)
		default:
			a.input(member.DeviceDone{Result: r})
		}
	}
	w.after(begin+took, done)
}

// DeviceOps and DeviceDone hand through what a driver with a quorum device wants.
func (d *watched) DeviceOps() []confdb.DeviceOp {
	if dev, ok := d.Driver.(confdb.DeviceDriver); ok {
		return dev.DeviceOps()
	}
	return nil
}

func (d *watched) DeviceDone(now spec.Instant, r confdb.DeviceResult) {
	if dev, ok := d.Driver.(confdb.DeviceDriver); ok {
		dev.DeviceDone(now, r)
	}
}

// mend ends what is wrong with a path.
func (p *path) mend() {
	hung := p.hung
	*p = path{}
	for _, f := range hung {
		f()
	}
}

// timings are the cluster's, as the model has them.
func (w *world) timings() spec.Timings {
	c := spec.Cluster{Quorum: spec.Quorum{Model: w.cfg.Model}}
	if w.lab != nil {
		c = w.lab.def.Cluster
	}
	return c.Timings()
}

// deviceKinds are the faults of the quorum device: they come only where there is one.
var deviceKinds = []fault{
	{"device-gone", 1, func(w *world, rng *rand.Rand, _ *host) {
		w.troubleDevice(rng, nil, path{gone: true}, "answers with errors")
	}},
	{"device-hangs", 1, func(w *world, rng *rand.Rand, _ *host) { w.troubleDevice(rng, nil, path{hangs: true}, "hangs") }},
	{"device-slow", 3, func(w *world, rng *rand.Rand, _ *host) {
		p := path{slow: between(rng, 0, 300*time.Millisecond), tail: rng.IntN(2) == 0}
		w.troubleDevice(rng, nil, p, "is slower by "+p.slow.String())
	}},
	{"device-cut", 2, func(w *world, rng *rand.Rand, h *host) { // one host can't reach it
		p := path{gone: rng.IntN(2) == 0}
		p.hangs = !p.gone
		w.troubleDevice(rng, h, p, "can't be reached")
	}},
	{"device-late", 2, func(w *world, rng *rand.Rand, h *host) { // what one host decided happens up to D_io later
		w.troubleDevice(rng, h, path{late: between(rng, 0, 5*spec.DefaultDeviceIO.D()/4), slow: between(rng, 0, 150*time.Millisecond), tail: rng.IntN(2) == 0}, "is told late")
	}},
	{"claims", 3, func(w *world, rng *rand.Rand, h *host) { w.race(rng, h) }},
}

// troubleDevice has the device go wrong for a while, for one host or (nil) for all.
func (w *world) troubleDevice(rng *rand.Rand, h *host, p path, what string) {
	at, span := &w.device.path, between(rng, 100*time.Millisecond, 6*time.Second)
	if h == nil {
		w.tell("device: it %s for %v", what, span)
	} else {
		at = &h.path
		h.tell("the device %s for %v", what, span)
	}
	p.hung, at.hung = at.hung, nil
	if !p.hangs { // what hung goes on
		hung := p.hung
		p.hung = nil
		for _, f := range hung {
			w.after(0, f)
		}
	}
	*at = p
	w.ends(span, at.mend)
}

// race has the device's owner fall silent to each other host at another moment
// within some tens of milliseconds, so that their ranks don't keep them apart,
// and the device be so slow that what they read and write overlaps: several
// claim it at once.
func (w *world) race(rng *rand.Rand, h *host) {
	if l := w.leader(); l != nil {
		h = l
	}
	span := between(rng, 2*time.Second, 5*time.Second)
	w.device.slow, w.device.tail = between(rng, 5*time.Millisecond, spec.DefaultDeviceIO.D()/2), false
	w.tell("device: slower by %v for %v, and %s falls silent", w.device.slow, span, h.name)
	w.ends(span, w.device.mend)
	for _, o := range w.hosts {
		if o != h {
			at, to := between(rng, 0, 120*time.Millisecond), o.index
			w.after(at, func() { w.cutFor([][2]int{{h.index, to}}, span-at) })
		}
	}
	end := rng.IntN(4)
	back := between(rng, 50*time.Millisecond, span)
	w.after(120*time.Millisecond, func() {
		switch end {
		case 0:
			h.killMonitors()
			fallthrough
		case 1:
			h.killAgent()
			w.restartLater(h, back)
		case 2:
			h.pauseAgent(back)
		default:
			h.path.gone = true
			w.ends(back, h.path.mend)
		}
	})
}
