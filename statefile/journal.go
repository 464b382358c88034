package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// A journal is a line a record: eight hexadecimal digits of a CRC, a blank, the
// entry as JSON. Each CRC goes on from the one before it, so that a record
// which was lost, doubled or moved is found as well as one that was changed.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is a journal that was read.
type Journal struct {
	Entries []Entry
	Size    int64  // bytes of whole records; what is beyond was torn off and counts for nothing
	Sum     uint32 // CRC of the last record, to go on from
	Torn    bool
}

// AppendEntry appends e's record to dst. sum is the CRC of the record before
// (0: none); it returns that of this one.
func AppendEntry(dst []byte, e *Entry, sum uint32) ([]byte, uint32, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return dst, sum, fmt.Errorf("write journal: %w", err)
	}
	text := b.Bytes() // with a new line, which JSON has nowhere else
	sum = crc32.Update(sum, castagnoli, text[:len(text)-1])
	return append(fmt.Appendf(dst, "%08x ", sum), text...), sum, nil
}

// DecodeJournal reads a journal. A last record that a crash tore is left out:
// nothing rests on it, as a record is durable before anything is done about it.
// Any other damage is an error that wraps ErrDamaged and names the record.
func DecodeJournal(data []byte) (*Journal, error) {
	j := new(Journal)
	for len(data) > 0 {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			if n := len(text) - 1; n > 0 {
				if _, _, err := decodeRecord(text[:n], j.Sum); err == nil { // all of it was there
					return nil, fmt.Errorf("%w in record %d, byte %d: its end was changed", ErrDamaged, len(j.Entries)+1, j.Size)
				}
			}
			j.Torn = true
			return j, nil
		}
		e, sum, err := decodeRecord(text, j.Sum)
		if err != nil {
			// A file system may have lengthened the file and not yet written all
			// of its pages: zeros in the last record are torn too.
			if len(rest) == 0 && bytes.IndexByte(text, 0) >= 0 {
				j.Torn = true
				return j, nil
			}
			if errors.Is(err, ErrNewer) {
				return nil, fmt.Errorf("record %d: %w", len(j.Entries)+1, err)
			}
			return nil, fmt.Errorf("%w in record %d, byte %d: %w", ErrDamaged, len(j.Entries)+1, j.Size, err)
		}
		j.Entries = append(j.Entries, e)
		j.Sum = sum
		j.Size += int64(len(text)) + 1
		data = rest
	}
	return j, nil
}

func decodeRecord(text []byte, sum uint32) (Entry, uint32, error) {
	var e Entry
	if len(text) < 10 || text[8] != ' ' {
		return e, 0, fmt.Errorf("it doesn't begin with a checksum")
	}
	want, err := strconv.ParseUint(string(text[:8]), 16, 32)
	if err != nil {
		return e, 0, fmt.Errorf("it doesn't begin with a checksum")
	}
	if sum = crc32.Update(sum, castagnoli, text[9:]); sum != uint32(want) {
		return e, 0, fmt.Errorf("its checksum is %08x, not %08x: it was changed, or records before it are missing", sum, want)
	}
	if err := json.Unmarshal(text[9:], &e); err != nil {
		return e, 0, err
	}
	n := 0
	for _, set := range []bool{e.Begin != nil, e.Cluster != nil, e.Intent != nil, e.Result != nil, e.Moved != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return e, 0, fmt.Errorf("it holds %d kinds of entries, not one; a newer clusterplan may have written it", n)
	}
	if e.Begin != nil {
		if err := e.Begin.checkFormat(); err != nil {
			return e, 0, err
		}
	}
	return e, sum, nil
}

// Pending is an intent without a result that tells what is there: what was
// aimed at may be there, in part or not at all, and has to be read back by its
// id.
type Pending struct {
	Intent
	Run   string    // that had the intent
	Since time.Time // of the intent
	Error string    // of a result that failed without telling what is there
}

// Fold is the state after the entries of a journal, and what is pending.
//
//   - Begin: the definition that was applied last; the run is in the history.
//   - Cluster: the identity.
//   - Intent: pending, until a result with an object or Gone. A later intent
//     for the same address takes the place of an earlier one, whose object it
//     keeps where it has none of its own.
//   - Result with Object: that is what is there. Gone: nothing; a group takes
//     its resources with it. With neither (an error that tells nothing): the
//     state keeps what it has; the intent stays pending unless the state knows
//     the object already with the same id.
//   - Moved: the objects, and what is pending, have other addresses from here on.
//
// Entries of results for addresses without an intent (a group's resources) are
// taken as well. Fold does not change s; the new state shares what is unchanged.
func Fold(s State, entries []Entry) (State, []Pending) {
	if len(entries) == 0 {
		return s, nil
	}
	f := folder{at: make(map[addr.Address]int, len(s.Objects)), objects: slices.Clone(s.Objects), pending: map[addr.Address]Pending{}}
	for i := range f.objects {
		f.at[f.objects[i].Addr] = i
	}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Begin != nil:
			f.run = e.Begin.Run
			s.Definition = e.Begin.Definition
			if s.Lineage == "" {
				s.Lineage = e.Begin.Lineage
			}
			s.begun(e.Time, e.Begin)
		case e.Cluster != nil:
			s.Cluster = e.Cluster
		case e.Intent != nil:
			p := Pending{Intent: *e.Intent, Run: f.run, Since: e.Time}
			if p.Object == nil { // taking away what was begun: its id is all that is known of it
				p.Object = f.pending[p.Addr].Object
			}
			f.pending[p.Addr] = p
		case e.Result != nil:
			f.result(e.Result)
		case e.Moved != nil:
			f.move(e.Moved.Moves)
			s.moved(e.Moved.Moves)
		}
	}
	s.Objects = slices.DeleteFunc(f.objects, func(o Object) bool { return o.Type == "" })
	sortObjects(s.Objects)
	pending := make([]Pending, 0, len(f.pending))
	for _, p := range f.pending {
		pending = append(pending, p)
	}
	sortPending(pending)
	return s, pending
}

type folder struct {
	run     string
	objects []Object // Type "": deleted
	at      map[addr.Address]int
	parts   map[addr.Address][]addr.Address // resources by group, made when first asked for
	pending map[addr.Address]Pending
}

func (f *folder) result(r *Result) {
	switch {
	case r.Object != nil:
		delete(f.pending, r.Addr)
		if i, ok := f.at[r.Addr]; ok {
			f.objects[i] = *r.Object
		} else {
			f.at[r.Addr] = len(f.objects)
			f.objects = append(f.objects, *r.Object)
			if f.parts != nil {
				f.parts[r.Addr.Owner()] = append(f.parts[r.Addr.Owner()], r.Addr)
			}
		}
	case r.Gone:
		delete(f.pending, r.Addr)
		f.remove(r.Addr)
		if r.Addr.Type == addr.TypeGroup && !r.Addr.IsResource() {
			for _, a := range f.resources(r.Addr) {
				f.remove(a)
			}
		}
	default:
		p, ok := f.pending[r.Addr]
		if !ok {
			return
		}
		if i, known := f.at[r.Addr]; known && (p.Object == nil || p.Object.ID == f.objects[i].ID) {
			delete(f.pending, r.Addr)
			return
		}
		p.Error = r.Error
		f.pending[r.Addr] = p
	}
}

func (f *folder) resources(group addr.Address) []addr.Address {
	if f.parts == nil {
		f.parts = map[addr.Address][]addr.Address{}
		for _, o := range f.objects {
			f.parts[o.Addr.Owner()] = append(f.parts[o.Addr.Owner()], o.Addr)
		}
	}
	return f.parts[group]
}

func (f *folder) remove(a addr.Address) {
	if i, ok := f.at[a]; ok {
		f.objects[i] = Object{Addr: a}
		delete(f.at, a)
	}
}
