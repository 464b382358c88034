package diskdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Messages between servers, and payloads of blocks. Both are made of numbers
// (uvarint) and byte strings (length, bytes); what can't be read is dropped, or
// damage.

const (
	msgHeartbeat = iota + 1 // the owner's: its epoch, what is committed
	msgAck                  // the answer: what is applied
	msgAppend               // committed entries
	msgState                // the whole state
	msgPropose              // a command for the owner
	msgTakeover             // the owner hands the device over
)

var magic = []byte("CPQ1")

type message struct {
	kind    uint64
	epoch   uint64
	index   uint64 // heartbeat: committed; ack: applied; append: the one before its entries; state: its own
	entries []confdb.LogEntry
	snap    snapshot
	data    []byte // propose
	device  string // state: the device's path
}

// member is a server of the cluster.
type member struct {
	server uint64
	slot   uint8
	voter  bool // may own the device
}

// membership is who takes part, and which slots were ever given out.
type membership struct {
	members []member // by server id
	next    uint64   // the first slot that never belonged to anyone
}

func (m membership) find(server uint64) (member, bool) {
	for _, x := range m.members {
		if x.server == server {
			return x, true
		}
	}
	return member{}, false
}

func (m membership) clone() membership {
	m.members = slices.Clone(m.members)
	return m
}

// snapshot is the state at an index.
type snapshot struct {
	index, term uint64
	who         membership
	state       []byte // confdb's JSON
}

type writer struct{ b []byte }

func (w *writer) num(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) bytes(v []byte) {
	w.num(uint64(len(v)))
	w.b = append(w.b, v...)
}

func (w *writer) membership(m membership) {
	w.num(m.next)
	w.num(uint64(len(m.members)))
	for _, x := range m.members {
		w.num(x.server)
		v := uint64(x.slot) << 1
		if x.voter {
			v |= 1
		}
		w.num(v)
	}
}

func (w *writer) entries(list []confdb.LogEntry) {
	w.num(uint64(len(list)))
	for _, e := range list {
		w.num(e.Index)
		w.num(e.Term)
		w.bytes(e.Data)
	}
}

func (w *writer) snapshot(s snapshot) {
	w.num(s.index)
	w.num(s.term)
	w.membership(s.who)
	w.bytes(s.state)
}

var errShort = errors.New("cut short or malformed")

type reader struct {
	b   []byte
	err error
}

func (r *reader) num() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.err = nil, errShort
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.num()
	if n > uint64(len(r.b)) {
		r.b, r.err = nil, errShort
		return nil
	}
	v := slices.Clone(r.b[:n])
	r.b = r.b[n:]
	return v
}

func (r *reader) membership() membership {
	m := membership{next: r.num()}
	n := r.num()
	if n > Slots || m.next > Slots {
		r.err = errShort
		return m
	}
	last, slots := uint64(0), map[uint8]bool{}
	for range n {
		x := member{server: r.num()}
		v := r.num()
		x.slot, x.voter = uint8(v>>1), v&1 == 1
		if v>>1 >= m.next || x.server <= last || slots[x.slot] {
			r.err = errShort
			return m
		}
		last, slots[x.slot] = x.server, true
		m.members = append(m.members, x)
	}
	return m
}

func (r *reader) entries() []confdb.LogEntry {
	n := r.num()
	var out []confdb.LogEntry
	for i := range n {
		e := confdb.LogEntry{Index: r.num(), Term: r.num(), Data: r.bytes()}
		if r.err != nil || len(e.Data) == 0 || i > 0 && (e.Index != out[i-1].Index+1 || e.Term < out[i-1].Term) {
			r.err = errShort
			return nil
		}
		if e.Data[0] == entryMembers {
			if _, err := decodeMembers(e.Data); err != nil {
				r.err = err
				return nil
			}
		} else if e.Data[0] != entryCommand && e.Data[0] != entryFirst {
			r.err = errShort
			return nil
		}
		out = append(out, e)
	}
	return out
}

func (r *reader) snapshot() snapshot {
	return snapshot{index: r.num(), term: r.num(), who: r.membership(), state: r.bytes()}
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errShort
	}
	return r.err
}

// Kinds of entries: the first byte of their data.
const (
	entryCommand = iota + 1
	entryFirst   // an epoch's first
	entryMembers // the membership from then on
)

func encodeMembers(m membership) []byte {
	w := writer{b: []byte{entryMembers}}
	w.membership(m)
	return w.b
}

func decodeMembers(data []byte) (membership, error) {
	r := reader{b: data[1:]}
	m := r.membership()
	return m, r.end()
}

func (m message) encode() []byte {
	w := writer{b: slices.Clone(magic)}
	w.num(m.kind)
	w.num(m.epoch)
	switch m.kind {
	case msgHeartbeat, msgAck:
		w.num(m.index)
	case msgAppend:
		w.num(m.index)
		w.entries(m.entries)
	case msgState:
		w.snapshot(m.snap)
		w.bytes([]byte(m.device))
	case msgPropose:
		w.bytes(m.data)
	}
	return w.b
}

func decodeMessage(data []byte) (message, error) {
	if !bytes.HasPrefix(data, magic) {
		return message{}, errShort
	}
	r := reader{b: data[len(magic):]}
	m := message{kind: r.num(), epoch: r.num()}
	switch m.kind {
	case msgHeartbeat, msgAck:
		m.index = r.num()
	case msgAppend:
		m.index = r.num()
		m.entries = r.entries()
		if len(m.entries) > 0 && m.entries[0].Index != m.index+1 {
			return m, errShort
		}
	case msgState:
		m.snap = r.snapshot()
		m.device = string(r.bytes())
	case msgPropose:
		if m.data = r.bytes(); len(m.data) == 0 || len(m.data) > maxCommand {
			return m, errShort
		}
	case msgTakeover:
	default:
		return m, errShort
	}
	return m, r.end()
}

// Speaks tells whether a message is of servers with a quorum device.
func Speaks(data []byte) bool { return bytes.HasPrefix(data, magic) }

// Invitation tells whether a message that came to a node without a database
// asks it to take part in a cluster with a quorum device, and which device.
func Invitation(data []byte) (device string, ok bool) {
	if !Speaks(data) {
		return "", false
	}
	m, err := decodeMessage(data)
	return m.device, err == nil && m.kind == msgState && m.device != ""
}
