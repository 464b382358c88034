package diskdb

import (
	"cmp"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// booting formats an empty device for a new cluster, or goes on with a device
// that this server formatted before it was interrupted. It goes by what it reads
// from its begin on: what was there before may be gone, or another device's.
type booting struct {
	wanted  bool
	busy    bool         // a check or the header's write is under way
	after   uint64       // the newest op as it was asked for: older reads don't count
	held    spec.Instant // since when the own header was seen to stand there; 0: it wasn't
	until   spec.Instant // if the device can't be used then, it is given up
	problem string       // why it doesn't go on now: of the newest operation that decides that
	refused string       // why it came to nothing
	founded bool         // the slot is of this bootstrap, or of one that was cut off, and nothing was committed yet
}

// bootPatience is how long a bootstrap waits for a device that can't be used.
const bootPatience = 3 * time.Second

// Bootstrap makes this server the first of a new cluster. It is begun here;
// Status says when it leads, or why it came to nothing.
func (d *Driver) Bootstrap() error {
	if d.a.slot >= 0 || d.known {
		return confdb.ErrBootstrap
	}
	if !d.booting.wanted {
		d.booting = booting{wanted: true, after: d.opSerial, until: d.now.Add(bootPatience)}
		d.a.nextRead, d.a.wantAfter = d.now, d.opSerial
	}
	d.settle()
	return nil
}

// runBoot ends a bootstrap that the device keeps from going on.
func (d *Driver) runBoot() {
	b := &d.booting
	if !b.wanted || b.busy || d.now < b.until {
		return
	}
	if why := cmp.Or(b.problem, d.a.problem()); why != "" {
		d.refuseBoot(why)
		return
	}
	b.until = d.now.Add(bootPatience)
}

func (d *Driver) refuseBoot(why string) { d.booting = booting{refused: why} }

// bootRead looks at a read of the device's start with a bootstrap in mind. Of
// several servers that format one device at once, whoever wrote the header last
// has it: the others see that before they write anything else, unless a write
// took longer than the hold; what they wrote then keeps the last one from it, too.
func (d *Driver) bootRead(r confdb.DeviceResult) {
	b := &d.booting
	d.unfound(r)
	if !b.wanted || b.busy || r.ID <= b.after {
		return
	}
	empty := "empty it (" + howEmptied(d.cfg.Device) + ") and apply again"
	switch {
	case d.a.slot >= 0: // a member, as it turns out
		d.booting = booting{}
	case r.Err != "" && !r.Missing:
		b.problem, b.held = r.Err, 0 // and read again
	case d.cfg.Member:
		d.refuseBoot("it is not what it was: this node is a member of a cluster whose database it held; put it back as it was; if it is lost, so is the database: clusterplan destroy, then clusterplan apply")
	case r.Missing:
		d.format(r.Size)
	case blank(r.Data[:Block]):
		b.busy = true
		d.issue(confdb.DeviceOp{Length: areasAt}, func(r confdb.DeviceResult) {
			b.busy = false
			switch {
			case r.Err != "":
				b.problem = r.Err
			case !blank(r.Data[:Block]): // since the last look
				b.problem, d.a.nextRead = "", d.now
			case !blank(r.Data):
				d.refuseBoot(errForeign.Error() + "; if that is needed no more, " + empty)
			default:
				d.format(r.Size)
			}
		})
	case !d.a.read:
		d.refuseBoot(d.a.wrong + "; if that is needed no more, " + empty)
	case d.a.tab.header.founder != d.cfg.ServerID || !blank(r.Data[tableAt:]):
		d.refuseBoot("it holds this cluster already, or what another bootstrap left that was cut off or went on at the same time; if no cluster ever ran on it, " + empty)
	default:
		b.problem = ""
		if b.held == 0 {
			b.held = d.now
		}
		if end := b.held.Add(spec.DeviceHold(d.a.d())); d.a.readAt < end {
			d.a.nextRead = end
			return
		}
		d.booting = booting{founded: true}
		d.a.slot = 0
	}
}

// foundAgain notices the slot of a bootstrap that this server was killed amid.
func (d *Driver) foundAgain(r confdb.DeviceResult) {
	a := &d.a
	if r.Err != "" || a.wrong != "" || !a.read || a.slot < 0 || d.known || d.cfg.Member || a.tab.header.founder != d.cfg.ServerID {
		return
	}
	if image, _ := a.tab.best(); image.epoch == 0 {
		d.booting.founded = true
	}
}

// unfound gives the slot of a bootstrap back whose device was taken away before
// anything was committed: this server belongs to no cluster then.
func (d *Driver) unfound(r confdb.DeviceResult) {
	a := &d.a
	if !d.booting.founded || d.known || a.wrong == "" && !r.Missing || a.phase != idle || a.writeOp != 0 || d.areaBusy != [2]int{} {
		return
	}
	a.slot, a.own, a.tried, a.unsure, a.read = -1, record{}, 0, false, false
	d.own.problem = ""
	d.refuseBoot(a.lastErr + "; it was taken away while the cluster was made: apply again")
}

// format writes the header of an empty device.
func (d *Driver) format(size int64) {
	b := &d.booting
	area, err := areaSize(size)
	if err != nil {
		d.refuseBoot(err.Error())
		return
	}
	h := header{device: d.rng.Uint64() | 1, founder: d.cfg.ServerID, area: area, cluster: d.cfg.ClusterID}
	b.busy, b.held = true, 0
	d.issue(confdb.DeviceOp{Data: h.encode(), Create: true}, func(r confdb.DeviceResult) {
		b.busy = false
		if b.problem = r.Err; r.Err != "" {
			d.a.nextRead = d.now.Add(d.a.d())
			return
		}
		b.until = d.now.Add(bootPatience)
		d.a.nextRead = d.now // what stands there is looked at: another may have been faster
	})
}
