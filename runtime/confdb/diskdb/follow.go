package diskdb

import (
	"errors"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// peer is what an owner knows of another server.
type peer struct {
	match     uint64 // applied there
	next      uint64 // to send; 0: nothing before it answered
	quietTill spec.Instant
	heard     spec.Instant
	wantState bool
}

const (
	resend      = 150 * time.Millisecond
	resendState = time.Second
)

func (d *Driver) peer(server uint64) *peer {
	p := d.own.peers[server]
	if p == nil {
		p = &peer{quietTill: d.now.Add(2 * resend)} // one that has no database yet never answers
		d.own.peers[server] = p
	}
	return p
}

// Beat makes the owner's heartbeats.
func (d *Driver) Beat(now spec.Instant) {
	d.now = max(d.now, now)
	if !d.serving {
		return
	}
	for _, m := range d.who.members {
		if m.server == d.cfg.ServerID {
			continue
		}
		p := d.peer(m.server)
		if p.heard == 0 && d.now >= p.quietTill {
			p.wantState = true
		}
		d.say(m.server, true, message{kind: msgHeartbeat, index: d.commit})
	}
	d.settle()
}

// tellAll sends what was just committed to those that keep up.
func (d *Driver) tellAll() {
	for _, m := range d.who.members {
		if m.server == d.cfg.ServerID {
			continue
		}
		if p := d.peer(m.server); p.next != 0 && d.now.Sub(p.heard) < 4*d.settings.Suspicion {
			d.tell(m.server, p)
		}
	}
}

// tell sends a peer the entries that it lacks.
func (d *Driver) tell(server uint64, p *peer) {
	if p.next < d.first {
		p.wantState = true
		return
	}
	waits := p.match+1 < p.next // for the answer to what was sent before
	for p.next <= d.commit {
		rest := d.log[p.next-d.first : d.commit+1-d.first]
		n := take(rest)
		d.say(server, false, message{kind: msgAppend, index: p.next - 1, entries: rest[:n]})
		p.next += uint64(n)
	}
	// Only from the first that is not answered: a server that started anew says
	// so in its answers, and is heard however fast entries follow one another.
	if !waits {
		p.quietTill = d.now.Add(resend)
	}
}

func (d *Driver) peersWantState() bool {
	for _, p := range d.own.peers {
		if p.wantState {
			return true
		}
	}
	return false
}

// sendState gives the state to those that need it.
func (d *Driver) sendState(s snapshot) {
	for _, m := range d.who.members {
		p := d.own.peers[m.server]
		if p == nil || !p.wantState || m.server == d.cfg.ServerID {
			continue
		}
		d.say(m.server, false, message{kind: msgState, snap: s, device: d.cfg.Device})
		p.wantState, p.next = false, s.index+1
		p.quietTill = d.now.Add(resendState)
		d.tellBehind(m.server, p)
	}
	for id, p := range d.own.peers {
		if _, in := d.who.find(id); !in {
			p.wantState = false
		}
	}
}

// tellBehind is tell without a shorter wait for the answer.
func (d *Driver) tellBehind(server uint64, p *peer) {
	till := p.quietTill
	d.tell(server, p)
	p.quietTill = till
}

// CaughtUp are the servers that have applied what was committed a moment ago,
// answered lately, and are seen on this very device.
func (d *Driver) CaughtUp() map[uint64]bool {
	if !d.serving {
		return nil
	}
	out := map[uint64]bool{d.cfg.ServerID: true}
	for _, m := range d.who.members {
		p := d.own.peers[m.server]
		if p != nil && d.now.Sub(p.heard) < 2*d.settings.Suspicion && p.heard != 0 && p.match > 0 && p.match+8 >= d.commit &&
			d.a.tab.records[m.slot].server == m.server {
			out[m.server] = true
		}
	}
	return out
}

// Step takes a message.
func (d *Driver) Step(now spec.Instant, in confdb.Message) {
	d.now = max(d.now, now)
	m, err := decodeMessage(in.Data)
	if err != nil || in.From == 0 || in.From == d.cfg.ServerID || in.To != d.cfg.ServerID {
		return
	}
	switch m.kind {
	case msgHeartbeat, msgAppend, msgState:
		d.fromOwner(in.From, m)
	case msgAck:
		d.answered(in.From, m)
	case msgPropose:
		if d.serving {
			d.add(entryCommand, m.data)
		}
	case msgTakeover:
		if m.epoch >= d.term && d.mayOwn() && !d.serving {
			d.leader, d.challenge, d.a.challenge, d.a.notBefore = 0, d.now, true, 0
			d.a.nextRead = d.now
		}
	}
	d.settle()
}

// fromOwner takes the word of whoever says that it owns the device. A newer
// epoch than this server's own ends its ownership at once.
func (d *Driver) fromOwner(from uint64, m message) {
	if m.epoch < d.term || m.epoch == d.term && d.leader != from && (d.serving || d.leader != 0) {
		return
	}
	if d.serving {
		d.a.release()
		d.stepDown()
	}
	if d.a.phase == owning && m.epoch > d.a.own.epoch {
		d.a.release()
		d.stepDown()
	}
	d.term, d.leader, d.heard, d.own.problem = m.epoch, from, d.now, ""
	switch m.kind {
	case msgHeartbeat:
		d.say(from, true, message{kind: msgAck, index: d.applied})
	case msgAppend:
		for _, e := range m.entries {
			if e.Index == d.last()+1 && d.commit == d.last() {
				d.log = append(d.log, e)
				d.commitTo(e.Index)
			}
		}
	case msgState:
		if m.snap.index > d.commit {
			s := m.snap
			d.install, d.first, d.log, d.commit, d.baseWho = &s, s.index+1, nil, s.index, s.who.clone()
			d.setMembers(s.who)
		}
	}
}

// answered notes what a peer has applied, and sends what it lacks.
func (d *Driver) answered(from uint64, m message) {
	if _, in := d.who.find(from); !in || !d.serving || m.epoch != d.term || m.index > d.commit {
		return
	}
	p := d.peer(from)
	if m.index > p.match { // it goes on: what was sent is on its way
		p.quietTill = max(p.quietTill, d.now.Add(resend))
	}
	p.heard, p.match = d.now, m.index
	if p.next == 0 {
		p.next = m.index + 1
		p.wantState = m.index == 0 || p.next < d.first
	}
	if m.index < d.commit && d.now >= p.quietTill {
		if p.next = m.index + 1; m.index == 0 {
			p.wantState = true
			return
		}
		d.tell(from, p)
	}
}

var errSelf = errors.New("the owner of the quorum device can't take itself out; hand over to another node first")

// change proposes another membership.
func (d *Driver) change(edit func(m *membership) error) error {
	switch {
	case !d.isMember():
		return confdb.ErrOutside
	case !d.serving:
		return confdb.ErrNotLeader
	}
	for _, e := range d.log[d.commit+1-d.first:] {
		if e.Data[0] == entryMembers {
			return confdb.ErrBusy
		}
	}
	m := d.who.clone()
	if err := edit(&m); err != nil {
		if errors.Is(err, errAlready) {
			return nil
		}
		return err
	}
	d.add(entryMembers, encodeMembers(m)[1:])
	d.settle()
	return nil
}

var errAlready = errors.New("it is so already")

func voters(m *membership) (n int) {
	for _, x := range m.members {
		if x.voter {
			n++
		}
	}
	return n
}

// AddLearner gives a server a slot, or the one back that it had before it was
// removed; it may not own the device yet (or no more).
func (d *Driver) AddLearner(server uint64) error {
	return d.change(func(m *membership) error {
		i := slices.IndexFunc(m.members, func(x member) bool { return x.server >= server })
		had := slices.IndexFunc(d.a.tab.records[:], func(r record) bool { return r.server == server })
		switch {
		case i >= 0 && m.members[i].server == server:
			switch x := &m.members[i]; {
			case !x.voter:
				return errAlready
			case voters(m) == 1:
				return confdb.ErrLastVoter
			case server == d.cfg.ServerID:
				return errSelf
			default:
				x.voter = false
			}
			return nil
		case had < 0 && m.next >= Slots:
			return errors.New("the quorum device has no slot left: each of the 32 servers that ever joined (a node with a new or emptied data directory is another one) keeps its own for good, since its writes may still be on their way; those that are members go on; to take another in, make the cluster anew on an empty device: clusterplan destroy, empty the device (" + howEmptied(d.cfg.Device) + "), then clusterplan apply")
		case i < 0:
			i = len(m.members)
		}
		slot := uint8(had)
		if had < 0 {
			slot = uint8(m.next)
			m.next++
		}
		m.members = slices.Insert(m.members, i, member{server: server, slot: slot})
		return nil
	})
}

// Promote lets a server own the device.
func (d *Driver) Promote(server uint64) error {
	return d.change(func(m *membership) error {
		for i := range m.members {
			if x := &m.members[i]; x.server == server {
				switch {
				case x.voter:
					return errAlready
				case !d.CaughtUp()[server]:
					return confdb.ErrNotCaughtUp
				}
				x.voter = true
				return nil
			}
		}
		return confdb.ErrUnknown
	})
}

// Remove takes a server out, for good; its slot stays unused.
func (d *Driver) Remove(server uint64) error {
	return d.change(func(m *membership) error {
		x, in := m.find(server)
		switch {
		case !in:
			return errAlready
		case x.voter && voters(m) == 1:
			return confdb.ErrLastVoter
		case server == d.cfg.ServerID:
			return errSelf
		}
		m.members = slices.DeleteFunc(m.members, func(x member) bool { return x.server == server })
		return nil
	})
}

// Transfer hands the device over to a server that is caught up.
func (d *Driver) Transfer(to uint64) error {
	if to == d.cfg.ServerID && d.serving {
		return nil
	}
	m, in := d.who.find(to)
	switch {
	case !d.isMember():
		return confdb.ErrOutside
	case !d.serving:
		return confdb.ErrNotLeader
	case !in:
		return confdb.ErrUnknown
	case !m.voter || !d.CaughtUp()[to]:
		return confdb.ErrNotCaughtUp
	}
	epoch := d.term
	d.a.release()
	d.stepDown()
	d.awaitCall = true
	d.say(to, false, message{kind: msgTakeover, epoch: epoch})
	d.settle()
	return nil
}
