package confdbtest

import (
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Device is a quorum device that all servers of a world see. Operations of
// different servers, and of one, are done in any order; what a read returns and
// when a write counts is decided, block by block, somewhere between its begin
// and its end.
type Device struct {
	Blocks map[int64][]byte // by number; missing ones are zeros
	Absent bool             // there is no such file, until one is made
	Gone   bool             // it answers with errors
	Full   bool             // writes fail
	Failed int              // writes that did
	Hangs  bool             // it doesn't answer, until it is mended
	Slow   time.Duration    // added to each operation, at most
	Size   int64            // 0: a file
	Writes int
	// Late, where set, adds to the time until a server's operation is done; it counts at the very end.
	Late func(server uint64, op confdb.DeviceOp) time.Duration

	files int // that were at its path
	hung  []func()
}

// block is the size of what is written at once.
const block = 4096

func read(file map[int64][]byte, offset int64, into []byte) {
	for i := 0; i < len(into); i += block {
		copy(into[i:min(i+block, len(into))], file[(offset+int64(i))/block])
	}
}

func write(file map[int64][]byte, offset int64, data []byte) {
	b := make([]byte, block)
	copy(b, data)
	file[offset/block] = b
}

// Swap puts another file in its place. Who has the old one open goes on with it
// until the next read, which fails; then the new one is opened.
func (d *Device) Swap(blocks map[int64][]byte) {
	d.Blocks, d.Absent = blocks, false
	d.files++
}

// Remove takes the file away.
func (d *Device) Remove() {
	d.Swap(map[int64][]byte{})
	d.Absent = true
}

// Empty is what dd from /dev/zero does to a device's first MiB.
func (d *Device) Empty() {
	for n := range int64(1 << 20 / block) {
		delete(d.Blocks, n)
	}
}

// Mend lets a device answer again; what hung goes on.
func (d *Device) Mend() {
	d.Gone, d.Hangs = false, false
	hung := d.hung
	d.hung = nil
	for _, f := range hung {
		f()
	}
}

// device carries out what a driver wants of the device.
func (s *Server) device() {
	drv, ok := s.Driver.(confdb.DeviceDriver)
	if !ok {
		return
	}
	for _, op := range drv.DeviceOps() {
		s.operate(op)
	}
}

func (s *Server) operate(op confdb.DeviceOp) {
	w, dev := s.W, s.W.Device
	if dev.Hangs {
		dev.hung = append(dev.hung, func() { s.operate(op) })
		return
	}
	took := time.Duration(w.Rng.Int64N(int64(w.Cfg.Disk))+1) + time.Duration(w.Rng.Int64N(int64(dev.Slow)+1))
	if dev.Slow > 0 && w.Rng.IntN(8) == 0 {
		took += time.Duration(w.Rng.Int64N(int64(10 * dev.Slow))) // some stay in flight while others come and go
	}
	r := confdb.DeviceResult{ID: op.ID, Size: dev.Size}
	moment := func() time.Duration { return time.Duration(w.Rng.Int64N(int64(took))) }
	if dev.Late != nil {
		if late := dev.Late(s.ID, op); late > 0 {
			took += late
			moment = func() time.Duration { return took - 1 }
		}
	}
	life, file := s.life, s.file
	if file == nil && (op.Data == nil || op.Create) && !dev.Gone && (!dev.Absent || op.Create) {
		dev.Absent = false
		file, s.opened = dev.Blocks, dev.files
	}
	switch {
	case dev.Gone:
		r.Err = "input/output error"
	case dev.Absent && (file == nil || op.Data == nil):
		r.Err, r.Missing = "no such file or directory", true
	case op.Data != nil && !op.Create && file == nil:
		r.Err = "it failed, and is read before it is written again"
	case op.Data == nil && s.opened != dev.files:
		r.Err = "it is another file than it was"
	case op.Data != nil && dev.Full:
		dev.Failed++
		r.Err = "no space left on device"
	case op.Data != nil:
		dev.Writes++
		whole := w.Rng.IntN(2) == 0
		for i := 0; i < len(op.Data); i += block {
			at, part := op.Offset+int64(i), op.Data[i:min(i+block, len(op.Data))]
			w.After(moment(), func() {
				// The writes of a process that died are done before it starts again, or never.
				if s.life == life || whole {
					write(file, at, part)
				}
			})
		}
	default:
		r.Data = make([]byte, op.Length)
		for i := 0; i < op.Length; i += block {
			at, part := op.Offset+int64(i), r.Data[i:min(i+block, op.Length)]
			if op.Length > 1<<20 || at >= 1<<20 { // areas: at once is enough
				read(file, at, part)
				continue
			}
			if file[at/block] == nil && w.Rng.IntN(8) != 0 {
				continue // most are empty: no event for each
			}
			w.After(moment(), func() { read(file, at, part) })
		}
	}
	s.file = file
	s.in(took, func() {
		if r.Err != "" {
			s.file = nil // and opened anew
		}
		s.Driver.(confdb.DeviceDriver).DeviceDone(s.now(), r)
		s.pump()
	})
}
