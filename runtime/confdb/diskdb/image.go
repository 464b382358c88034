package diskdb

import (
	"fmt"
	"hash/crc32"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// image is what an area holds: a snapshot and the log after it.
type image struct {
	snap    snapshot
	entries []confdb.LogEntry
}

func (m *image) last() uint64 { return m.snap.index + uint64(len(m.entries)) }

const (
	chunk      = 1 << 20 // of one read or write
	batch      = 1 << 20 // bytes of entries in one block record, unless one is longer
	farthest   = batch + maxCommand + 2*Block
	entryExtra = 32 // an entry's numbers, at most
)

// parseImage reads an image from what is read of its area so far. more: that
// isn't enough. The log ends where a record was never written, or only in part;
// that a later one stands behind it, or that records are missing that were
// durable, is damage, and never taken for the end.
func parseImage(b []byte, p pointer, server, device uint64, area int64) (m image, more bool, err error) {
	is := func(h blockHead) bool {
		return h.device == device && h.server == server && h.epoch == p.epoch && h.number == p.number
	}
	seq := uint64(0)
	for pos := 0; ; seq++ {
		if int64(pos)+Block > area {
			return m, false, check(seq, p)
		}
		if pos+Block > len(b) {
			return m, true, nil
		}
		h, ok := decodeBlockHead(b[pos:])
		ok = ok && is(h) && h.seq == seq && int64(pos+blocks(int(h.length))) <= area
		if ok {
			if pos+blocks(int(h.length)) > len(b) {
				return m, true, nil
			}
			payload := b[pos+blockHeadSize:][:h.length]
			ok = crc32.Checksum(payload, castagnoli) == h.sum
			if ok {
				if err := m.take(payload, seq); err != nil {
					return m, false, err
				}
				pos += blocks(int(h.length))
				continue
			}
		}
		end := min(area, int64(pos)+farthest)
		if int64(len(b)) < end {
			return m, true, nil
		}
		for at := pos + Block; int64(at)+Block <= end; at += Block {
			if h, ok := decodeBlockHead(b[at:]); ok && is(h) && h.seq > seq {
				return m, false, fmt.Errorf("the log is damaged: record %d can't be read, and record %d can", seq, h.seq)
			}
		}
		return m, false, check(seq, p)
	}
}

// check wants as many records as were durable.
func check(found uint64, p pointer) error {
	if found <= p.seq {
		return fmt.Errorf("the log is damaged: it ends at record %d, and %d were written", found, p.seq+1)
	}
	return nil
}

func (m *image) take(payload []byte, seq uint64) error {
	r := reader{b: payload}
	if seq == 0 {
		m.snap = r.snapshot()
	} else {
		list := r.entries()
		if r.err == nil && len(list) > 0 && list[0].Index != m.last()+1 {
			return fmt.Errorf("the log is damaged: entry %d stands where %d belongs", list[0].Index, m.last()+1)
		}
		m.entries = append(m.entries, list...)
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("the log is damaged: record %d is %w", seq, err)
	}
	return nil
}

// buildImage writes an image; seq is that of its last record.
func buildImage(m image, h blockHead) (b []byte, seq uint64) {
	w := writer{}
	w.snapshot(m.snap)
	h.seq, h.length = 0, uint64(len(w.b))
	b = h.encode(w.b)
	for rest := m.entries; len(rest) > 0; {
		n := take(rest)
		h.seq++
		b = append(b, logRecord(h, rest[:n])...)
		rest = rest[n:]
	}
	return b, h.seq
}

// logRecord is one record of entries.
func logRecord(h blockHead, list []confdb.LogEntry) []byte {
	w := writer{}
	w.entries(list)
	h.length = uint64(len(w.b))
	return h.encode(w.b)
}

// take is how many entries go into one record.
func take(list []confdb.LogEntry) int {
	size := 0
	for i, e := range list {
		if size += len(e.Data) + entryExtra; size > batch && i > 0 {
			return i
		}
	}
	return len(list)
}
