package statefile

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Records that are written at once become durable at once, and only then is told
// that they are. A crash may leave any of their bytes, in any order: a file system
// writes a file's pages as it likes, and those that it did not come to read as
// zeros. So each says which write it is of: `#FIRST I/OF ` stands before it, the
// index of the write's first record in the journal, and which of how many it is.
// One that is alone says nothing, as before format 1.3.
//
// A write is begun once the one before it is durable. So where zeros stand in a
// record, and all that follows is of the same write, that is the last one and came
// to no end: it is torn, and nothing rests on it. Where a record of another write
// follows, what has the zeros was durable once: that is damage.
type batch struct {
	first uint64 // index of its first record
	i, of int
}

const batchMark = '#'

// open tells whether more of it has to follow.
func (b *batch) open() bool { return b.i < b.of }

func (b *batch) header() string {
	if b.of <= 1 {
		return ""
	}
	return fmt.Sprintf("%c%d %d/%d ", batchMark, b.first, b.i, b.of)
}

// parseBatch splits a record's body; without a header it is a batch of its own.
func parseBatch(body []byte, index uint64) (b batch, rest []byte, err error) {
	if len(body) == 0 || body[0] != batchMark {
		return batch{first: index, i: 1, of: 1}, body, nil
	}
	id, rest, _ := bytes.Cut(body[1:], []byte(" "))
	place, rest, ok := bytes.Cut(rest, []byte(" "))
	i, of, _ := bytes.Cut(place, []byte("/"))
	var errs [3]error
	b.first, errs[0] = strconv.ParseUint(string(id), 10, 63)
	b.i, errs[1] = strconv.Atoi(string(i))
	b.of, errs[2] = strconv.Atoi(string(of))
	if !ok || errors.Join(errs[:]...) != nil || b.i < 1 || b.i > b.of || b.header() != string(body[:len(body)-len(rest)]) {
		return b, nil, errors.New("it doesn't say which write it is of")
	}
	return b, rest, nil
}

// next takes the record with this index, and gives what stands behind its header.
func (b *batch) next(body []byte, index uint64) ([]byte, error) {
	next, rest, err := parseBatch(body, index)
	switch {
	case err != nil:
		return nil, err
	case b.open() && (next.first != b.first || next.of != b.of || next.i != b.i+1),
		!b.open() && (next.first != index || next.i != 1):
		return nil, errors.New("records of its write, or of the one before, are missing")
	}
	*b = next
	return rest, nil
}

// torn tells whether a record that is no longer whole, and the rest behind it, are
// what a crash left of one write: the one whose first record has the index first.
func torn(first uint64, text, rest []byte) bool {
	if bytes.IndexByte(text, 0) < 0 {
		return false
	}
	var last batch
	var sum uint32
	known := false // sum is that of the line before
	for len(rest) > 0 {
		line, more, whole := bytes.Cut(rest, []byte("\n"))
		rest = more
		if bytes.IndexByte(line, 0) >= 0 {
			known = false
			continue
		}
		if !whole {
			return torsoOf(first, line)
		}
		if len(line) < 10 || line[8] != ' ' {
			return false
		}
		stated, err := strconv.ParseUint(string(line[:8]), 16, 32)
		if err != nil {
			return false
		}
		if known {
			if _, _, err := checkRecord(line, sum); err != nil {
				return false
			}
		}
		sum, known = uint32(stated), true
		b, _, err := parseBatch(line[9:], 0)
		if err != nil || b.of == 1 || b.first != first || b.i <= last.i || last.of > 0 && b.of != last.of {
			return false
		}
		last = b
	}
	return true
}

// torsoOf tells whether a line that was cut off is of that write, as far as it goes.
func torsoOf(first uint64, line []byte) bool {
	mark := fmt.Sprintf("%c%d ", batchMark, first)
	if len(line) <= 9 {
		return true
	}
	body := string(line[9:])
	return body[:min(len(body), len(mark))] == mark[:min(len(body), len(mark))]
}
