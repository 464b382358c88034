package statefile

import (
	"bytes"
	"cmp"
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
// Records that become durable by one write say so (batch.go).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is a journal that was read.
type Journal struct {
	Entries []Entry
	Size    int64 // bytes of whole records; what is beyond was torn off and counts for nothing
	Chain   Chain // to go on from
	Torn    bool
}

func encodeEntry(e *Entry, key string) ([]byte, error) {
	if i := e.Intent; i != nil && i.Object != nil {
		intent := *i
		intent.Object = i.Object.hidden(key)
		one := *e
		one.Intent, e = &intent, &one
	}
	if r := e.Result; r != nil && r.Object != nil {
		result := *r
		result.Object = r.Object.hidden(key)
		one := *e
		one.Result, e = &result, &one
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	return b.Bytes()[:b.Len()-1], nil // without the new line, which JSON has nowhere else
}

// record appends a record of text, which has no new line in it.
func (c *Chain) record(dst, text []byte) []byte {
	c.Sum = crc32.Update(c.Sum, castagnoli, text)
	c.n++
	dst = append(fmt.Appendf(dst, "%08x ", c.Sum), text...)
	return append(dst, '\n')
}

// DecodeJournal reads a journal; keys open one that is sealed. What a crash tore of the last write is left out,
// and the rest of that write with it: nothing rests on it, as a record is durable before anything is done about it.
// Any other damage is an error that wraps ErrDamaged and names the record; other
// errors are that it can't be opened, or ErrNewer.
func DecodeJournal(data []byte, keys Keys) (j *Journal, err error) {
	j = new(Journal)
	var b batch    // that is read
	var at Journal // where it began
	defer func() {
		if err == nil && b.open() { // its end is missing
			*j = at
			j.Torn = true
		}
	}()
	for n := 1; len(data) > 0; n++ {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			if cut := len(text) - 1; cut > 0 && text[cut] != 0 { // zero: its page was not written yet
				if _, _, err := checkRecord(text[:cut], j.Chain.Sum); err == nil { // all of it was there
					return nil, fmt.Errorf("%w in record %d, byte %d: its end was changed", ErrDamaged, n, j.Size)
				}
			}
			j.Torn = true
			return j, nil
		}
		body, sum, err := checkRecord(text, j.Chain.Sum)
		if err != nil {
			first := j.Chain.n
			if b.open() {
				first = b.first
			}
			if torn(first, text, rest) {
				j.Torn = true
				return j, nil
			}
			return nil, fmt.Errorf("%w in record %d, byte %d: %w", ErrDamaged, n, j.Size, err)
		}
		if !b.open() {
			at = *j
		}
		if body, err = b.next(body, j.Chain.n); err != nil {
			return nil, fmt.Errorf("%w in record %d, byte %d: %w", ErrDamaged, n, j.Size, err)
		}
		keyed := j.Chain.Sealed()
		plain, err := j.Chain.open(body, keys)
		if err != nil && !keyed && bytes.HasPrefix(body, []byte(keyStart)) {
			return nil, err // of the key that all others are sealed with
		}
		if err == nil && plain != nil {
			var e Entry
			if e, err = decodeEntry(plain); err == nil {
				j.Entries = append(j.Entries, e)
				if e.Begin != nil && e.Begin.DigestKey != "" {
					j.Chain.key = e.Begin.DigestKey
				}
			}
		}
		if errors.Is(err, ErrNewer) {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%w in record %d, byte %d: %w", ErrDamaged, n, j.Size, err)
		}
		j.Chain.Sum = sum
		j.Chain.n++
		j.Size += int64(len(text)) + 1
		data = rest
	}
	return j, nil
}

// checkRecord is what stands in a record behind its sum, which goes on from sum.
func checkRecord(text []byte, sum uint32) ([]byte, uint32, error) {
	if len(text) < 10 || text[8] != ' ' {
		return nil, 0, fmt.Errorf("it doesn't begin with a checksum")
	}
	want, err := strconv.ParseUint(string(text[:8]), 16, 32)
	if err != nil {
		return nil, 0, fmt.Errorf("it doesn't begin with a checksum")
	}
	if sum = crc32.Update(sum, castagnoli, text[9:]); sum != uint32(want) {
		return nil, 0, fmt.Errorf("its checksum is %08x, not %08x: it was changed, or records before it are missing", sum, want)
	}
	return text[9:], sum, nil
}

func decodeEntry(text []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(text, &e); err != nil {
		return e, err
	}
	n := 0
	for _, set := range []bool{e.Begin != nil, e.Cluster != nil, e.Intent != nil, e.Result != nil, e.Moved != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return e, fmt.Errorf("it holds %d kinds of entries, not one; a newer clusterplan may have written it", n)
	}
	if e.Begin != nil {
		return e, e.Begin.checkFormat()
	}
	return e, nil
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
			s.DigestKey = cmp.Or(s.DigestKey, e.Begin.DigestKey)
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
