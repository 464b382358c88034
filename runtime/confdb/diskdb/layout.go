package diskdb

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The device, from its start:
//
//	0           header: whose device it is, written once
//	4 KiB       a pair of sectors for each slot, written in turn by the slot's server alone
//	1 MiB       two areas for each slot, written by the slot's server alone
//
// A slot belongs to one server id for good; it is never given to another,
// since a write of the server that had it may be in flight for however long.
// Numbers are big endian; each block that counts has a CRC-32C.
const (
	Block     = 4096
	Slots     = 32
	tableAt   = Block
	headLen   = tableAt + Slots*2*Block // header and all sectors: one read
	areasAt   = 1 << 20
	areaMost  = 64 << 20
	areaLeast = 62 << 20 // keys and checkpoints may take 48 MiB, and a database that outgrew its area would have no owner any more
	reserve   = 8 << 20  // of each area, set aside when it is first written
	version   = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal writes the checksum of b into its last 4 bytes.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
	return b
}

func sealed(b []byte) bool {
	return crc32.Checksum(b[:len(b)-4], castagnoli) == binary.BigEndian.Uint32(b[len(b)-4:])
}

func blank(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// header says whose the device is.
type header struct {
	device  uint64 // random: told apart from a copy that was formatted elsewhere
	founder uint64 // the server that formatted it
	area    int64  // bytes of an area
	cluster string
}

const headerSize = 512

// howEmptied is how a person empties a device: all before the areas has to be blank.
func howEmptied(device string) string {
	return "remove the file, or write zeros to the block device's first MiB: dd if=/dev/zero of=" + cmp.Or(device, "DEVICE") + " bs=1M count=1"
}

var headerMagic = []byte("CPQUORUM")

func (h header) encode() []byte {
	b := make([]byte, 0, Block)
	b = append(b, headerMagic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, h.device)
	b = binary.BigEndian.AppendUint64(b, h.founder)
	b = binary.BigEndian.AppendUint64(b, uint64(h.area))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.cluster)))
	b = append(b, h.cluster...)
	b = b[:Block]
	seal(b[:headerSize])
	return b
}

// maxCluster is the longest cluster id that fits a header.
const maxCluster = headerSize - 4 - 38

var (
	errBlank   = errors.New("it is not formatted as a quorum device")
	errForeign = errors.New("it is no quorum device, and not empty: it holds something else, which is not overwritten")
)

func decodeHeader(b []byte) (header, error) {
	var h header
	switch {
	case blank(b[:Block]):
		return h, errBlank
	case !bytes.HasPrefix(b, headerMagic):
		return h, errForeign
	case !sealed(b[:headerSize]):
		return h, errors.New("its header is damaged (the checksum doesn't match)")
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != version {
		return h, fmt.Errorf("it has format %d, this program reads %d; use a newer program", v, version)
	}
	h.device, h.founder, h.area = binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[20:]), int64(binary.BigEndian.Uint64(b[28:]))
	n := int(binary.BigEndian.Uint16(b[36:]))
	if n > maxCluster || h.area < areaLeast || h.area > areaMost || h.area%Block != 0 {
		return header{}, errors.New("its header makes no sense")
	}
	h.cluster = string(b[38 : 38+n])
	return h, nil
}

// areaSize is how large the areas of a device of that size are (0: a file,
// which grows).
func areaSize(size int64) (int64, error) {
	if size == 0 {
		return areaMost, nil
	}
	a := min((size-areasAt)/(2*Slots)/Block*Block, areaMost)
	if a < areaLeast {
		return 0, fmt.Errorf("it has %d MiB, and %d are needed", size>>20, (areasAt+2*Slots*areaLeast)>>20)
	}
	return a, nil
}

func (h header) areaAt(slot, area int) int64 { return areasAt + int64(slot*2+area)*h.area }

// States of a record.
const (
	stateIdle = iota + 1 // owns nothing
	stateClaiming
	stateOwning
)

// pointer names an image: where the log of an epoch lies.
type pointer struct {
	epoch  uint64 // 0: none
	number uint64 // of the epoch's images; grows with each compaction
	area   uint8
	seq    uint64 // records of it that are durable at least
}

// same tells whether both name one image, however long.
func (p pointer) same(q pointer) bool { return p.epoch == q.epoch && p.number == q.number }

// record is what a server's sector says.
type record struct {
	slot    uint8
	server  uint64 // 0: nothing was written
	device  uint64
	counter uint64 // grows with each write
	epoch   uint64 // the newest that it claimed
	owned   uint64 // the newest that it won
	state   uint8
	io      int64 // D_io that it keeps to, ns
	image   pointer
}

// recordSize is within the 512 bytes that any disk writes at once.
const recordSize = 128

var recordMagic = []byte("CPQS")

func (r record) encode() []byte {
	b := make([]byte, 0, Block)
	b = append(b, recordMagic...)
	b = append(b, version, r.slot, r.state, r.image.area)
	for _, v := range [...]uint64{r.server, r.device, r.counter, r.epoch, r.owned, uint64(r.io), r.image.epoch, r.image.number, r.image.seq} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = b[:Block]
	seal(b[:recordSize])
	return b
}

func (r record) offset() int64 {
	return tableAt + int64(r.slot)*2*Block + int64(r.counter&1)*Block
}

func decodeRecord(b []byte, slot int, device uint64) (record, bool) {
	var r record
	if !bytes.HasPrefix(b, recordMagic) || b[4] != version || !sealed(b[:recordSize]) {
		return r, false
	}
	r.slot, r.state, r.image.area = b[5], b[6], b[7]
	var v [9]uint64
	for i := range v {
		v[i] = binary.BigEndian.Uint64(b[8+8*i:])
	}
	r.server, r.device, r.counter, r.epoch, r.owned, r.io = v[0], v[1], v[2], v[3], v[4], int64(v[5])
	r.image.epoch, r.image.number, r.image.seq = v[6], v[7], v[8]
	ok := int(r.slot) == slot && r.device == device && r.server != 0 && r.state >= stateIdle && r.state <= stateOwning &&
		r.io > 0 && r.image.area < 2
	return r, ok
}

// table is one reading of all sectors.
type table struct {
	header  header
	records [Slots]record // server 0: none
	damaged [Slots]bool   // something stands there, and neither sector can be read
}

// decodeTable reads headLen bytes of the device's start.
func decodeTable(b []byte, t *table) error {
	var err error
	if t.header, err = decodeHeader(b); err != nil {
		return err
	}
	for s := range Slots {
		pair := b[tableAt+s*2*Block:][:2*Block]
		one, ok1 := decodeRecord(pair[:Block], s, t.header.device)
		two, ok2 := decodeRecord(pair[Block:], s, t.header.device)
		t.records[s], t.damaged[s] = record{}, false
		switch {
		case ok1 && (!ok2 || one.counter > two.counter):
			t.records[s] = one
		case ok2:
			t.records[s] = two
		case !blank(pair[:recordSize]) && !blank(pair[Block:Block+recordSize]):
			t.damaged[s] = true
		}
	}
	return nil
}

// best is the newest image that any record names, and its slot.
func (t *table) best() (p pointer, slot int) {
	slot = -1
	for s, r := range t.records {
		if i := r.image; i.epoch > p.epoch || i.epoch == p.epoch && i.number > p.number {
			p, slot = i, s
		}
	}
	return p, slot
}

// An area holds one image: a snapshot's block record, then the log's, one
// after the other, each written at once, from a block's start.
type blockHead struct {
	device uint64
	server uint64
	epoch  uint64
	number uint64
	seq    uint64 // 0: the snapshot; 1, 2, ...: the log
	length uint64 // of what follows
	sum    uint32 // of what follows
}

const blockHeadSize = 64

var blockMagic = []byte("CPQL")

func (h blockHead) encode(payload []byte) []byte {
	total := blocks(len(payload))
	b := make([]byte, 0, total)
	b = append(b, blockMagic...)
	b = append(b, version, 0, 0, 0)
	for _, v := range [...]uint64{h.device, h.server, h.epoch, h.number, h.seq} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	b = b[:blockHeadSize]
	seal(b)
	b = append(b, payload...)
	return b[:total]
}

// blocks is the size on the device of a payload.
func blocks(payload int) int { return (blockHeadSize + payload + Block - 1) / Block * Block }

func decodeBlockHead(b []byte) (h blockHead, ok bool) {
	if len(b) < blockHeadSize || !bytes.HasPrefix(b, blockMagic) || b[4] != version || !sealed(b[:blockHeadSize]) {
		return h, false
	}
	var v [6]uint64
	for i := range v {
		v[i] = binary.BigEndian.Uint64(b[8+8*i:])
	}
	h.device, h.server, h.epoch, h.number, h.seq, h.length = v[0], v[1], v[2], v[3], v[4], v[5]
	h.sum = binary.BigEndian.Uint32(b[56:])
	return h, h.length <= areaMost
}
