package diskdb

import (
	"fmt"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// booting formats an empty device for a new cluster, or goes on with a device
// that this server formatted before it was interrupted.
type booting struct {
	wanted bool
	busy   bool // a check or the header's write is under way
}

// Bootstrap makes this server the first of a new cluster. It is begun here;
// Status says when it leads, or what is wrong with the device.
func (d *Driver) Bootstrap() error {
	if d.a.slot >= 0 || d.known {
		return confdb.ErrBootstrap
	}
	if d.a.wrong != "" {
		return fmt.Errorf("the quorum device %s can't be used: %s", d.cfg.Device, d.a.wrong)
	}
	d.booting.wanted = true
	d.a.nextRead = d.now
	d.settle()
	return nil
}

// bootRead looks at a read of the device's start with a bootstrap in mind.
func (d *Driver) bootRead(r confdb.DeviceResult) {
	b := &d.booting
	if !b.wanted || b.busy {
		return
	}
	switch {
	case d.a.slot >= 0, d.a.wrong != "":
		b.wanted = false
	case d.a.read:
		b.wanted = false
		if d.a.tab.header.founder != d.cfg.ServerID || !d.a.tab.unused() {
			d.a.wrong = "it holds this cluster already, or another server's interrupted bootstrap; empty it if it was never used"
			return
		}
		d.a.slot = 0
		d.a.own = record{}
	case r.Missing:
		d.format(r.Size)
	case r.Err != "":
	case !blank(r.Data[:Block]):
		_, err := decodeHeader(r.Data)
		if err == nil {
			return // read again
		}
		d.a.wrong, b.wanted = err.Error(), false
	default:
		b.busy = true
		d.issue(confdb.DeviceOp{Length: areasAt}, func(r confdb.DeviceResult) {
			b.busy = false
			switch {
			case r.Err != "":
				d.a.lastErr = r.Err
			case !blank(r.Data):
				d.a.wrong, b.wanted = errForeign.Error(), false
			default:
				d.format(r.Size)
			}
		})
	}
}

// unused tells whether no server ever owned anything here.
func (t *table) unused() bool {
	for s := range Slots {
		if t.records[s].server != 0 || t.damaged[s] {
			return false
		}
	}
	return true
}

// format writes the header of an empty device.
func (d *Driver) format(size int64) {
	b := &d.booting
	area, err := areaSize(size)
	if err != nil {
		d.a.wrong, b.wanted = err.Error(), false
		return
	}
	h := header{device: d.rng.Uint64() | 1, founder: d.cfg.ServerID, area: area, cluster: d.cfg.ClusterID}
	b.busy = true
	d.issue(confdb.DeviceOp{Data: h.encode(), Create: true}, func(r confdb.DeviceResult) {
		b.busy = false
		if r.Err != "" {
			d.a.lastErr = r.Err
		}
		d.a.nextRead = d.now // what stands there is looked at: another may have been faster
	})
}
