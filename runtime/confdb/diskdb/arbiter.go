package diskdb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// arbiter settles who owns the device, by sectors alone: a Light-Weight Lease,
// one register a server, as sanlock's delta lease has them. DESIGN.md (above
// this folder) proves it. It reads all sectors and writes its own: at most one
// write is under way, and one that hangs keeps the next back; so does a read,
// but for an owner's: what it needs proven doesn't wait for a read that began
// too early to prove it.
type arbiter struct {
	io      issuer
	rng     *rand.Rand
	now     spec.Instant
	slot    int           // -1: not known
	id      uint64        // server
	cluster string        // whose device it has to be
	want    time.Duration // D_io as configured
	told    bool          // want is the definition's; else what stands on the device counts

	phase     phase
	challenge bool         // the owner is silent: claim the device when it may be
	notBefore spec.Instant // no claim before, after one that came to nothing

	tab  table // as last read
	seen [Slots]spec.Instant
	read bool // tab is of a device of this cluster

	reads    []reading    // under way, oldest first
	looks    uint64       // the newest read that was looked at
	readAt   spec.Instant // when it began
	writeOp  uint64       // the write under way; 0: none
	writeAt  spec.Instant
	nextRead spec.Instant
	writing  record
	own      record       // as it stands on the device, for sure
	tried    uint64       // the newest counter that a write was tried with
	unsure   bool         // the last write failed: it may stand there or not
	wroteBy  uint64       // the newest op as it was written; reads up to it may show the record before
	ioSince  spec.Instant // since when its D_io surely stands there

	// A claim.
	basis    spec.Instant // start of the read that it rests on
	base     [Slots]record
	baseSeen spec.Instant // no other server's authority began after this
	heldFrom spec.Instant

	// As owner.
	wonAt      spec.Instant
	oldLeases  spec.Instant
	image      pointer // to publish with the next renewal
	published  pointer // as proven to stand on the device
	renewAt    spec.Instant
	renewing   bool // the newest write is a renewal whose read is to come
	renewal    spec.Instant
	renewedBy  uint64 // the newest op as its write was done; 0: it isn't
	authority  spec.Instant
	until      spec.Instant
	lastOwn    spec.Instant // the newest authority that this server had in this life
	verifiedBy uint64       // the newest read that proved that the device is owned still
	wantAfter  uint64       // a read is wanted that is newer than this; 0: none is

	failRead, failWrite spec.Instant // since when they fail; 0: they don't
	lastErr             string
	wrong               string // why what the newest look found isn't the cluster's device
	doubt               bool   // something failed since the last look that went well: nothing is written before the next
	doubtBy             uint64 // the newest op then
	lost                string // why the device was given up, until it is owned or followed again
}

// reading is a read under way.
type reading struct {
	op uint64
	at spec.Instant // its begin
}

const mostReads = 3 // an owner's at once: an idle one, a renewal's and a record's

// issuer starts operations; ids grow.
type issuer interface {
	newest() uint64 // the newest id given out
	readTable() uint64
	writeRecord(r record) uint64
}

type phase int

const (
	idle phase = iota
	claiming
	holding
	owning
)

func (a *arbiter) d() time.Duration {
	if a.own.io > 0 {
		return time.Duration(a.own.io)
	}
	return a.want
}

// beats tells whether another's record is a claim that goes before the claim of
// epoch by slot, or shows that it was won past it.
func beats(r record, epoch uint64, slot int) bool {
	if r.server == 0 {
		return false
	}
	if r.owned >= epoch {
		return true
	}
	return r.state != stateIdle && (r.epoch > epoch || r.epoch == epoch && int(r.slot) < slot)
}

// run lets happen what is due.
func (a *arbiter) run(now spec.Instant) {
	a.now = max(a.now, now)
	if a.phase == owning && a.now >= max(a.until, a.wonAt.Add(spec.DeviceLease(a.d()))) {
		a.lost = a.why("the device did not take a renewal in time")
		a.release()
	}
	if a.phase == holding && a.now >= a.heldFrom.Add(2*spec.DeviceLease(a.d())) {
		a.withdraw() // it can't be read back
	}
	a.write()
	n := len(a.reads)
	if a.mayRead() && (a.wantAfter != 0 || a.now >= a.nextRead || a.phase == holding && a.now >= a.holdEnd()) ||
		a.phase == owning && 0 < n && n < mostReads && a.wantAfter >= a.reads[n-1].op {
		a.wantAfter = 0
		if a.failRead == 0 {
			a.failRead = a.now
		}
		a.reads = append(a.reads, reading{a.io.readTable(), a.now})
	}
}

// mayRead tells whether no read is under way, but for some that a newer one overtook.
func (a *arbiter) mayRead() bool {
	n := len(a.reads)
	return n == 0 || n < mostReads && a.reads[n-1].op < a.looks
}

// write writes the own sector if it has to say something else.
func (a *arbiter) write() {
	if a.writeOp != 0 || a.slot < 0 || !a.read || a.doubt || a.tab.damaged[a.slot] && a.own.server == 0 {
		return
	}
	next := a.own
	switch {
	case a.phase == idle && (a.own.server == 0 || a.unsure || a.own.state != stateIdle || a.own.io != int64(a.want)):
		if a.now < a.renewAt { // after a failure
			return
		}
		next.state, next.io = stateIdle, int64(a.want)
	case a.phase == owning && !a.renewing && a.now >= a.renewAt:
		next.state, next.io, next.owned, next.image = stateOwning, int64(a.want), a.own.epoch, a.image
		a.renewing, a.renewal = true, a.now
	default:
		return
	}
	a.put(next)
}

func (a *arbiter) put(r record) {
	r.slot, r.server, r.device = uint8(a.slot), a.id, a.tab.header.device
	// After a write that failed, and may stand there half, the same sector is
	// written again: never both.
	r.counter = a.own.counter + 1
	for r.counter <= a.tried {
		r.counter += 2
	}
	a.tried = r.counter
	a.writing, a.writeAt = r, a.now
	if a.failWrite == 0 {
		a.failWrite = a.now
	}
	a.writeOp = a.io.writeRecord(r)
	if a.phase == owning {
		a.renewedBy = 0
		if r.io < a.own.io { // others may see it from now on, and wait no longer than it says
			a.until = min(a.until, a.now.Add(spec.DeviceLease(time.Duration(r.io))))
		}
	}
}

func (a *arbiter) holdEnd() spec.Instant {
	most := a.d()
	for _, r := range a.tab.records {
		most = max(most, time.Duration(r.io))
	}
	return a.heldFrom.Add(spec.DeviceHold(most))
}

// wrote learns that the write is done.
func (a *arbiter) wrote(now spec.Instant, failed string) {
	a.now = max(a.now, now)
	took := a.now.Sub(a.writeAt)
	a.writeOp = 0
	a.unsure = failed != ""
	if failed != "" {
		a.lastErr = failed
		a.renewing = false
		a.renewAt = a.now.Add(a.want / 2)
		a.distrust()
		if a.phase == claiming {
			a.withdraw()
		}
		return
	}
	a.failWrite = 0
	limit := a.d()
	if a.writing.io != a.own.io {
		a.ioSince = a.now
	}
	a.own, a.wroteBy = a.writing, a.io.newest()
	switch a.phase {
	case claiming:
		// It rests on a read that is too old to be held against others' claims.
		if a.now.Sub(a.basis) > limit {
			a.withdraw()
			return
		}
		a.phase, a.heldFrom = holding, a.now
	case owning:
		if !a.renewing {
			return
		}
		if took > limit {
			a.renewing, a.renewAt = false, a.now
			return
		}
		a.renewedBy = a.io.newest()
		a.wantAfter = a.renewedBy // a read that began before proves nothing
	}
}

// looked learns what a read of all sectors found.
func (a *arbiter) looked(now spec.Instant, op uint64, b []byte, failed string) {
	a.now = max(a.now, now)
	i := slices.IndexFunc(a.reads, func(r reading) bool { return r.op == op })
	if i < 0 {
		return
	}
	at := a.reads[i].at
	a.reads = slices.Delete(a.reads, i, i+1)
	if op < a.looks {
		return // a newer one was faster
	}
	a.looks, a.readAt = op, at
	if op > a.wantAfter {
		a.wantAfter = 0
	}
	a.wrong = ""
	if failed == "" {
		var t table
		if failed = a.recognise(b, &t); failed == "" {
			a.take(&t)
		} else if a.slot >= 0 {
			a.wrong = failed
			a.giveUp()
		} else { // a server without a slot holds to no device
			a.read = false
			if failed != errBlank.Error() {
				a.wrong = failed
			}
		}
	}
	if failed != "" {
		a.lastErr = failed
		a.doubt, a.doubtBy = true, a.io.newest()
		a.nextRead = a.now.Add(a.d())
		return
	}
	a.failRead, a.lastErr = 0, ""
	a.doubt = a.doubt && op <= a.doubtBy
	for _, r := range slices.Backward(a.reads) {
		if r.op > op {
			a.failRead = r.at // of the oldest that is newer
		}
	}
	switch a.phase {
	case idle:
		a.considerClaim()
	case holding:
		if a.readAt >= a.holdEnd() {
			a.judge()
		}
	case owning:
		a.verify(op)
	}
	a.pace()
}

// distrust has the device looked at before it is written again: what failed is
// opened anew at the next operation, and may be another one by then.
func (a *arbiter) distrust() {
	a.doubt, a.doubtBy = true, a.io.newest()
	a.nextRead = min(a.nextRead, a.now)
}

// recognise reads what stands on the device, and tells why it isn't this
// cluster's, or not the one that this server has its slot on.
func (a *arbiter) recognise(b []byte, t *table) string {
	if err := decodeTable(b, t); err != nil {
		return err.Error()
	}
	if t.header.cluster != a.cluster {
		return fmt.Sprintf("it belongs to another cluster (id %s)", t.header.cluster)
	}
	if a.read && t.header != a.tab.header {
		if a.slot >= 0 {
			return "it is another quorum device than it was"
		}
		a.read = false
	}
	return ""
}

// giveUp ends at once what rests on a device that has another in its place.
func (a *arbiter) giveUp() {
	switch a.phase {
	case owning:
		a.lost = a.wrong
		a.release()
	case claiming, holding:
		a.withdraw()
	}
}

// take notes what the sectors say, and since when.
func (a *arbiter) take(t *table) {
	for s := range Slots {
		if !a.read || t.records[s] != a.tab.records[s] || t.damaged[s] {
			a.seen[s] = a.now
		}
	}
	a.tab = *t
	if !a.read && a.slot < 0 {
		for s, r := range t.records {
			if r.server == a.id {
				a.slot = s
			}
		}
	}
	a.read = true
	if !a.told { // a server that starts knows no definition: D_io may be longer than the default
		most := int64(0)
		for _, r := range t.records {
			most = max(most, r.io)
		}
		if most > 0 {
			a.want = time.Duration(most)
		}
	}
	if a.slot >= 0 && a.own.server == 0 && t.records[a.slot].server == a.id {
		a.own = t.records[a.slot] // of this server's life before
		a.tried = a.own.counter
	}
}

// pace says when to look again.
func (a *arbiter) pace() {
	switch a.phase {
	case idle:
		if !a.challenge {
			a.nextRead = a.now.Add(idleRead)
			return
		}
		a.nextRead = a.now.Add(a.d() / 2)
		for s, r := range a.tab.records {
			if s != a.slot && r.server != 0 && r.state != stateIdle {
				if at := a.seen[s].Add(spec.DeviceSilence(time.Duration(r.io))); at > a.now && at < a.nextRead {
					a.nextRead = at
				}
			}
		}
		if a.notBefore > a.now && a.notBefore < a.nextRead {
			a.nextRead = a.notBefore
		}
	case claiming:
		a.nextRead = a.now.Add(idleRead)
	case holding:
		a.nextRead = max(a.now+1, a.holdEnd())
	case owning:
		a.nextRead = a.now.Add(idleRead) // renewals read
	}
}

// idleRead is how often a server that follows looks whether it still sees the device.
const idleRead = 5 * time.Second

// considerClaim claims the device if every other server has been silent for
// long enough, up to the start of the read that just ended.
func (a *arbiter) considerClaim() {
	if !a.challenge || a.slot < 0 || a.writeOp != 0 || a.unsure || a.own.state != stateIdle || a.now < a.notBefore {
		return
	}
	if a.now.Sub(a.readAt) > a.d() || a.readAt < a.ioSince {
		return // others hold their claims by the D_io that they see here
	}
	epoch := max(a.own.epoch, a.own.owned)
	a.baseSeen = a.lastOwn
	for s, r := range a.tab.records {
		if a.tab.damaged[s] && s != a.slot {
			return
		}
		if r.server == 0 {
			continue
		}
		if s != a.slot && r.state != stateIdle && a.readAt.Sub(a.seen[s]) < spec.DeviceSilence(time.Duration(r.io)) {
			return
		}
		epoch = max(epoch, r.epoch, r.owned, r.image.epoch)
		if r.epoch > 0 && (s != a.slot || a.lastOwn == 0) {
			a.baseSeen = max(a.baseSeen, a.seen[s])
		}
	}
	a.phase, a.basis, a.base = claiming, a.readAt, a.tab.records
	next := a.own
	next.state, next.epoch = stateClaiming, epoch+1
	a.put(next)
}

// judge decides a claim that was held, by a read that began afterwards.
func (a *arbiter) judge() {
	for s, r := range a.tab.records {
		switch {
		case s == a.slot:
			if r != a.own {
				a.withdraw() // the device doesn't keep what was written
				return
			}
		case a.tab.damaged[s], beats(r, a.own.epoch, a.slot), a.base[s].server != 0 && a.base[s].state != stateIdle && r != a.base[s]:
			a.withdraw()
			return
		}
	}
	a.won()
}

func (a *arbiter) won() {
	a.phase, a.wonAt, a.oldLeases = owning, a.now, a.baseSeen
	a.authority, a.until, a.renewAt, a.renewing = 0, 0, a.now, false
	a.image, a.published = a.own.image, pointer{}
	a.lost = ""
}

// withdraw gives a claim up, and waits a little before the next.
func (a *arbiter) withdraw() {
	a.phase = idle
	a.notBefore = a.now.Add(a.d()/2 + time.Duration(a.rng.Int64N(int64(a.d()))))
	a.renewAt = a.now
}

// release gives the device up.
func (a *arbiter) release() {
	if a.phase == owning {
		a.lastOwn = max(a.lastOwn, a.authority)
		a.authority, a.until, a.renewing = 0, 0, false
	}
	a.withdraw()
}

// verify looks, as owner, for newer claims.
func (a *arbiter) verify(op uint64) {
	mine := a.tab.records[a.slot]
	for s, r := range a.tab.records {
		if s != a.slot && beats(r, a.own.epoch, a.slot) {
			a.lost = fmt.Sprintf("the server of slot %d has taken the quorum device over", s)
			a.release()
			return
		}
	}
	if mine != a.own && op > a.wroteBy && (a.writeOp == 0 || mine != a.writing) {
		a.lastErr = "it doesn't keep what is written"
		a.renewing, a.renewAt = false, a.now.Add(a.d()/2)
		return
	}
	a.verifiedBy = op
	if a.renewing && a.renewedBy != 0 && op > a.renewedBy && mine == a.own {
		a.renewed()
	}
}

// renewed counts the newest renewal, which was read back.
func (a *arbiter) renewed() {
	a.renewing, a.renewedBy = false, 0
	a.authority = a.renewal
	a.until = a.renewal.Add(spec.DeviceLease(time.Duration(a.own.io)))
	a.published = a.own.image
	a.renewAt = max(a.now, a.renewal.Add(a.d()))
	if !a.image.same(a.published) {
		a.renewAt = a.now // an image waits to be published
	}
}

// problem says why the device can't be used now, "" if it can.
func (a *arbiter) problem() string {
	if a.wrong != "" {
		return a.wrong
	}
	for s, bad := range a.tab.damaged {
		if bad {
			return fmt.Sprintf("the sectors of slot %d are damaged (no checksum matches)", s)
		}
	}
	for _, since := range [...]spec.Instant{a.failRead, a.failWrite} {
		if since != 0 && a.now.Sub(since) >= spec.DeviceLease(a.d()) {
			return a.why("an operation takes for ever")
		}
	}
	return ""
}

func (a *arbiter) why(or string) string {
	if a.lastErr != "" && (a.failRead != 0 || a.failWrite != 0) {
		return a.lastErr
	}
	return or
}

// deadline is when run has something to do; 0: when an operation is done.
func (a *arbiter) deadline() spec.Instant {
	var at spec.Instant
	sooner := func(t spec.Instant) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	if a.mayRead() {
		sooner(max(a.nextRead, 1))
		if a.phase == holding {
			sooner(a.holdEnd())
		}
	}
	if a.phase == owning {
		sooner(max(a.until, a.wonAt.Add(spec.DeviceLease(a.d()))))
		if a.writeOp == 0 && !a.renewing && !a.doubt {
			sooner(a.renewAt)
		}
	}
	if a.phase == holding {
		sooner(a.heldFrom.Add(2 * spec.DeviceLease(a.d())))
	}
	if a.phase == idle && a.writeOp == 0 && a.slot >= 0 && a.read && !a.doubt && (a.unsure || a.own.state != stateIdle) {
		sooner(max(a.renewAt, a.now+1))
	}
	for _, since := range [...]spec.Instant{a.failRead, a.failWrite} {
		if t := since.Add(spec.DeviceLease(a.d())); since != 0 && t > a.now {
			sooner(t)
		}
	}
	return at
}
