package diskdb

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// owner is what a server does from the moment that its claim is won: it reads
// the newest image, writes it with an entry of its own into an area of its own,
// publishes that in its sector, and serves once this was read back. From then on
// it adds records; each counts once the device, read after it was written, shows
// no newer claim.
type owner struct {
	stage stage
	epoch uint64
	since spec.Instant // the stage's or the log's last progress

	src     pointer // the image to start from
	srcSlot int
	buf     []byte // read of it

	made  image // to serve from, once published
	write []byte
	wrote int
	fresh pointer // the image being written or published
	size  int64   // of fresh

	cur     pointer // the image that serves
	at      int64   // where its next record goes
	snapLen int64
	written uint64 // index of the newest entry that is on the device
	flight  bool   // a record is being written, up to entry to
	to      uint64
	toSeq   uint64
	toAt    int64
	proof   uint64 // the newest operation when the record was durable: a later read has to show that the device is still owned

	next        *snapshot // to write a new image from
	wantCompact bool
	retryAt     spec.Instant
	patience    spec.Instant
	problem     string

	peers map[uint64]*peer
}

type stage int

const (
	notOwner stage = iota
	loading
	writing
	publishing
	serving
	compacting // as serving, while a new image is written
	switching  // as serving, while it is published
)

// runOwner does what an owner has to do next.
func (d *Driver) runOwner() {
	o := &d.own
	if d.a.phase != owning {
		if o.stage != notOwner {
			d.stepDown()
		}
		return
	}
	if o.stage == notOwner || o.epoch != d.a.own.epoch {
		d.stepDown()
		o.stage, o.epoch, o.since = loading, d.a.own.epoch, d.now
		d.load()
	}
	if o.retryAt != 0 && d.now >= o.retryAt {
		o.retryAt = 0
		switch o.stage {
		case loading:
			d.load()
		case writing, compacting:
			d.writeChunk()
		}
	}
	switch o.stage {
	case publishing:
		if d.a.published.same(o.fresh) {
			d.serve()
		}
	case switching:
		if d.a.published.same(o.fresh) {
			o.stage, o.cur, o.at, o.snapLen, o.write = serving, o.fresh, o.size, o.size, nil
			o.since = d.now
			d.forget(o.made.snap.index)
		}
	}
	if o.stage == serving {
		d.runLog()
	}
	d.beImpatient()
}

// beImpatient gives the device up when nothing gets done on it, though the
// own sector can be written: another server may fare better.
func (d *Driver) beImpatient() {
	o := &d.own
	o.patience = 0
	if o.stage == notOwner || o.stage == serving && !o.flight && o.proof == 0 && o.written == d.last() {
		o.since = d.now
		return
	}
	most := max(time.Second, spec.DeviceLease(d.a.d()))
	if o.stage == loading || o.stage == writing {
		most *= 4 // a large log; each chunk is progress
	}
	if o.patience = o.since.Add(most); d.now >= o.patience {
		d.giveUp("nothing can be written to its log")
	}
}

func (d *Driver) giveUp(why string) {
	d.a.lost = why
	d.a.release()
	d.a.notBefore = d.now.Add(2*time.Second + time.Duration(d.rng.Int64N(int64(time.Second))))
	d.stepDown()
	d.own.problem = why
}

// stepDown ends an ownership: what is not committed is forgotten.
func (d *Driver) stepDown() {
	o := &d.own
	if o.stage >= serving {
		if n := d.commit + 1 - d.first; n < uint64(len(d.log)) {
			d.log = d.log[:n:n]
		}
		d.leader, d.heard, d.challenge, d.a.challenge = 0, d.now, 0, false
	}
	d.serving = false
	d.own = owner{problem: o.problem}
}

// load reads the next chunk of the image to start from.
func (d *Driver) load() {
	o := &d.own
	if len(o.buf) == 0 {
		o.src, o.srcSlot = d.a.tab.best()
		if o.src.epoch == 0 {
			if d.a.tab.header.founder != d.cfg.ServerID {
				d.giveUp("it holds no log: its bootstrap was interrupted; bootstrap again on the same node")
				return
			}
			d.prepare(image{snap: snapshot{who: membership{next: 1, members: []member{{server: d.cfg.ServerID, slot: 0, voter: true}}}}})
			return
		}
	}
	h, epoch := d.a.tab.header, o.epoch
	op := confdb.DeviceOp{
		Offset: h.areaAt(o.srcSlot, int(o.src.area)) + int64(len(o.buf)), Length: int(min(chunk, h.area-int64(len(o.buf)))),
	}
	d.issue(op, func(r confdb.DeviceResult) {
		if o.stage != loading || o.epoch != epoch {
			return
		}
		if r.Err != "" || r.Missing {
			d.a.lastErr = r.Err
			o.retryAt = d.now.Add(d.a.d() / 2)
			return
		}
		o.since = d.now
		o.buf = append(o.buf, r.Data...)
		m, more, err := parseImage(o.buf, o.src, d.a.tab.records[o.srcSlot].server, h.device, h.area)
		switch {
		case err != nil:
			d.giveUp(err.Error())
		case more:
			d.load()
		default:
			d.prepare(m)
		}
	})
}

// prepare writes the image with the epoch's first entry into a free area.
func (d *Driver) prepare(m image) {
	o := &d.own
	if m.last() < d.commit {
		d.giveUp(fmt.Sprintf("its log ends at entry %d, and entry %d was committed: it lost data, or is another device", m.last(), d.commit))
		return
	}
	who := m.snap.who
	for _, e := range m.entries {
		if e.Data[0] == entryMembers {
			who, _ = decodeMembers(e.Data)
		}
	}
	if me, in := who.find(d.cfg.ServerID); !in || !me.voter || int(me.slot) != d.a.slot {
		d.setMembers(who)
		d.out = !in
		d.giveUp("this server takes no part in the cluster any more")
		return
	}
	m.entries = append(m.entries, confdb.LogEntry{Index: m.last() + 1, Term: o.epoch, Data: []byte{entryFirst}})
	o.made, o.buf = m, nil
	o.stage = writing
	d.startImage(pointer{epoch: o.epoch, number: 1})
}

// startImage begins to write o.made; it waits where no area is free.
func (d *Driver) startImage(p pointer) {
	o := &d.own
	p.area = 2
	for area := range uint8(2) {
		// The newest image is never written over, nor is an area that an older write of this server may still reach.
		if d.areaBusy[area] == 0 && !(o.srcSlot == d.a.slot && o.src.epoch != 0 && o.src.area == area) {
			p.area = area
			break
		}
	}
	if p.area > 1 {
		d.giveUp("an older write hangs")
		return
	}
	h := d.a.tab.header
	o.write, p.seq = buildImage(o.made, blockHead{device: h.device, server: d.cfg.ServerID, epoch: p.epoch, number: p.number})
	o.fresh, o.size, o.wrote, o.snapLen = p, int64(len(o.write)), 0, int64(len(o.write))
	if o.size+farthest > h.area {
		why := fmt.Sprintf("the database has %d MiB with its log, and the device has room for %d", o.size>>20, (h.area-farthest)>>20)
		if o.stage == compacting {
			o.stage, o.next, o.wantCompact, o.write, o.problem = serving, nil, false, nil, why
			return
		}
		d.giveUp(why)
		return
	}
	d.writeChunk()
}

func (d *Driver) writeChunk() {
	o := &d.own
	if d.a.doubt {
		o.retryAt = d.now.Add(d.a.d() / 4)
		return
	}
	data := o.write[o.wrote:min(len(o.write), o.wrote+chunk)]
	op := confdb.DeviceOp{Offset: d.area(o.fresh.area) + int64(o.wrote), Data: data}
	if o.wrote == 0 {
		op.Reserve = min(reserve, d.a.tab.header.area)
	}
	fresh := o.fresh
	d.writeArea(fresh.area, op, func(failed string) {
		if o.stage != writing && o.stage != compacting || !o.fresh.same(fresh) {
			return
		}
		if failed != "" {
			d.a.lastErr = failed
			o.problem = failed
			o.retryAt = d.now.Add(d.a.d() / 2)
			return
		}
		o.since = d.now
		if o.wrote += len(data); o.wrote < len(o.write) {
			d.writeChunk()
			return
		}
		if o.stage == writing {
			o.stage = publishing
		} else {
			o.stage = switching
		}
		d.a.image = o.fresh
		d.a.renewAt = d.now
	})
}

// area is where an area of this server's begins.
func (d *Driver) area(n uint8) int64 {
	return d.a.tab.header.areaAt(d.a.slot, int(n))
}

// writeArea writes into an own area, and keeps account of what may be in flight.
func (d *Driver) writeArea(n uint8, op confdb.DeviceOp, then func(failed string)) {
	d.areaBusy[n]++
	d.issue(op, func(r confdb.DeviceResult) {
		d.areaBusy[n]--
		if r.Err != "" {
			d.a.distrust()
		}
		then(r.Err)
	})
}

// serve begins: the image is published, and nobody had claimed the device when
// that was read back. All that it holds is committed.
func (d *Driver) serve() {
	o := &d.own
	m := o.made
	o.stage, o.cur, o.at, o.written = serving, o.fresh, o.size, m.last()
	o.problem, o.since = "", d.now
	d.first, d.log, d.baseWho = m.snap.index+1, m.entries, m.snap.who.clone()
	if d.commit <= m.snap.index {
		d.commit = m.snap.index
		d.setMembers(m.snap.who)
	}
	if d.handed < m.snap.index {
		s := m.snap
		d.install = &s
	} else if d.install != nil { // it was to be given out, and the log has it
		d.install = nil
	}
	d.serving, d.term, d.leader = true, o.epoch, d.cfg.ServerID
	o.peers = map[uint64]*peer{}
	o.src, o.srcSlot = o.cur, d.a.slot
	o.made, o.write = image{}, nil
	d.commitTo(m.last())
}

// runLog writes what was proposed, one record at a time.
func (d *Driver) runLog() {
	o := &d.own
	if o.flight {
		return
	}
	if o.proof != 0 {
		if d.a.verifiedBy <= o.proof {
			d.a.wantAfter = max(d.a.wantAfter, o.proof)
			return
		}
		o.proof, o.written, o.cur.seq, o.at, o.since = 0, o.to, o.toSeq, o.toAt, d.now
		d.a.image = o.cur
		d.commitTo(o.written)
		d.tellAll()
	}
	area := d.a.tab.header.area
	if o.next != nil && d.areaBusy[1-o.cur.area] == 0 {
		s := *o.next
		o.next, o.wantCompact = nil, false
		o.made = image{snap: s}
		if s.index >= d.first-1 {
			o.made.entries = append(o.made.entries, d.log[s.index+1-d.first:o.written+1-d.first]...)
		}
		o.stage, o.since = compacting, d.now
		o.src, o.srcSlot = o.cur, d.a.slot
		d.startImage(pointer{epoch: o.epoch, number: o.cur.number + 1})
		return
	}
	if o.at-o.snapLen > area/4 {
		o.wantCompact = true
	}
	if o.written >= d.last() || d.now < o.retryAt || d.a.doubt {
		return
	}
	rest := d.log[o.written+1-d.first:]
	n := take(rest)
	h := d.a.tab.header
	b := logRecord(blockHead{device: h.device, server: d.cfg.ServerID, epoch: o.cur.epoch, number: o.cur.number, seq: o.cur.seq + 1}, rest[:n])
	if o.at+int64(len(b)) > area {
		o.wantCompact = true // and nothing more until it is done
		return
	}
	o.flight, o.to, o.toSeq, o.toAt = true, rest[n-1].Index, o.cur.seq+1, o.at+int64(len(b))
	epoch := o.epoch
	d.writeArea(o.cur.area, confdb.DeviceOp{Offset: d.area(o.cur.area) + o.at, Data: b}, func(failed string) {
		if o.epoch != epoch || !o.flight {
			return
		}
		o.flight = false
		if failed != "" {
			d.a.lastErr, o.problem = failed, failed
			o.retryAt = d.now.Add(d.a.d() / 2)
			return
		}
		o.problem = ""
		o.proof = d.opSerial
		d.a.wantAfter = max(d.a.wantAfter, o.proof)
	})
}

func (d *Driver) add(kind byte, data []byte) {
	e := confdb.LogEntry{Index: d.last() + 1, Term: d.term, Data: append([]byte{kind}, data...)}
	d.log = append(d.log, e)
}
