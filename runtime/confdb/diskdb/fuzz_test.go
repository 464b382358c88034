package diskdb

import (
	"bytes"
	"testing"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Whatever stands on a device or comes in a message is read or refused, and what
// is read is written again as it was.
func FuzzMessage(f *testing.F) {
	who := membership{next: 2, members: []member{{server: 1, slot: 0, voter: true}, {server: 5, slot: 1}}}
	for _, m := range []message{
		{kind: msgHeartbeat, epoch: 3, index: 7}, {kind: msgTakeover, epoch: 1}, {kind: msgPropose, data: []byte("x")},
		{kind: msgAppend, epoch: 2, index: 4, entries: []confdb.LogEntry{{Index: 5, Term: 2, Data: []byte{entryCommand, 'a'}}, {Index: 6, Term: 2, Data: encodeMembers(who)}}},
		{kind: msgState, epoch: 2, snap: snapshot{index: 4, term: 1, who: who, state: []byte("{}")}, device: "/d"},
	} {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMessage(data)
		if err != nil {
			return
		}
		again, err := decodeMessage(m.encode())
		if err != nil || !bytes.Equal(again.encode(), m.encode()) {
			t.Fatalf("%+v is read as %+v: %v", m, again, err)
		}
	})
}

func FuzzDevice(f *testing.F) {
	b := make([]byte, headLen)
	copy(b, header{device: 5, founder: 1, area: areaLeast, cluster: "c"}.encode())
	r := record{slot: 1, server: 3, device: 5, counter: 9, epoch: 4, owned: 4, state: stateOwning, io: 1, image: pointer{epoch: 4, number: 1, seq: 2}}
	copy(b[r.offset():], r.encode())
	f.Add(b[:4*Block], uint16(0), byte(0))
	image, _ := buildImage(image{snap: snapshot{state: []byte("{}")}, entries: []confdb.LogEntry{{Index: 1, Term: 1, Data: []byte{entryFirst}}}}, blockHead{device: 5, server: 3, epoch: 4, number: 1})
	f.Add(image, uint16(70), byte(1))
	f.Fuzz(func(t *testing.T, data []byte, at uint16, flip byte) {
		if len(data) > 0 {
			data[int(at)%len(data)] ^= flip
		}
		whole := make([]byte, headLen)
		copy(whole, data)
		var tab table
		if decodeTable(whole, &tab) == nil {
			tab.best()
		}
		_, _, _ = parseImage(data, pointer{epoch: 4, number: 1}, 3, 5, areaLeast)
	})
}
