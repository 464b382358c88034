package sim

import (
	"math/rand/v2"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// device is the quorum device of model single_quorum. All hosts see it. What an
// operation reads or writes, it does block by block, at any moments between its
// begin and its end; operations overtake each other, of one host too.
type device struct {
	blocks map[int64][]byte
	gone   bool          // it answers with errors
	hangs  bool          // it doesn't answer until it is mended
	slow   time.Duration // added to each operation, at most
	tail   bool          // now and then ten times as much
	hung   []func()
}

const deviceBlock = 4096

// operate carries out an operation of an agent's member.
func (w *world) operate(a *agent, op confdb.DeviceOp) {
	d, h := &w.device, a.h
	if d.hangs {
		d.hung = append(d.hung, func() { w.operate(a, op) })
		return
	}
	took := w.between(100*time.Microsecond, 6*time.Millisecond)
	if d.slow > 0 {
		took += w.between(0, d.slow)
		if d.tail && w.chance(0.1) {
			took += w.between(0, 10*d.slow)
		}
	}
	moment := func() time.Duration { return w.between(0, took) }
	r := confdb.DeviceResult{ID: op.ID}
	switch {
	case d.gone:
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
	w.after(took, done)
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

// mend ends what is wrong with the device.
func (d *device) mend() {
	d.gone, d.hangs, d.slow, d.tail = false, false, 0, false
	hung := d.hung
	d.hung = nil
	for _, f := range hung {
		f()
	}
}

// timings are the cluster's, as the model has them.
func (w *world) timings() spec.Timings {
	c := spec.Cluster{Quorum: spec.Quorum{Model: w.cfg.Model}}
	return c.Timings()
}

// startDeviceFaults lets the device go wrong, from a source of chance of its own.
func (w *world) startDeviceFaults() {
	if w.cfg.Model != spec.SingleQuorum {
		return
	}
	rng := rand.New(rand.NewPCG(w.cfg.Seed, 0x646576696365))
	gen := w.faults.gen
	var next func()
	next = func() {
		if !w.faults.on || w.faults.gen != gen {
			return
		}
		w.rep.Faults++
		d := &w.device
		span := between(rng, 100*time.Millisecond, 6*time.Second)
		switch rng.IntN(5) {
		case 0:
			w.tell("device: errors for %v", span)
			w.rep.Kinds["device-gone"]++
			d.gone = true
		case 1:
			w.tell("device: hangs for %v", span)
			w.rep.Kinds["device-hangs"]++
			d.hangs = true
		default:
			d.slow, d.tail = between(rng, 0, 300*time.Millisecond), rng.IntN(2) == 0
			w.tell("device: slower by %v for %v", d.slow, span)
			w.rep.Kinds["device-slow"]++
		}
		w.after(span, func() {
			d.mend()
			w.after(between(rng, 2*time.Second, 15*time.Second), next)
		})
	}
	w.after(between(rng, time.Second, 8*time.Second), next)
}
