package heartbeat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Bounds of a frame. MaxPacket fits into one Ethernet frame with IPv6 and a
// tunnel around it, so that no link splits it.
const (
	MaxPacket   = 1380
	MaxReleases = 24
	MaxDriver   = 8
	maxText     = 64 // a node id, a group id
)

// Errors of reading and writing frames.
var (
	ErrTooLarge  = errors.New("the frame is too large for one datagram")
	ErrMalformed = errors.New("this is no frame")
)

// payloadVersion is the first byte of a payload. A frame of another version is
// refused: a node with one has to be upgraded before it is heard.
const payloadVersion = 1

const (
	flagReady   = 1
	flagLeaving = 2
	flagAsks    = 4
	flagUnsaved = 8
)

// AppendPayload writes what the seal hides and protects: all of the frame but
// From, Incarnation and Seq, which stand in the packet's header.
func AppendPayload(b []byte, f *Frame) ([]byte, error) {
	if len(f.NodeID) > maxText || len(f.Releases) > MaxReleases || len(f.Driver) > MaxDriver {
		return nil, ErrTooLarge
	}
	start := len(b)
	flags := byte(0)
	if f.Ready {
		flags |= flagReady
	}
	if f.Leaving {
		flags |= flagLeaving
	}
	if f.Asks {
		flags |= flagAsks
	}
	if f.Unsaved {
		flags |= flagUnsaved
	}
	b = append(b, payloadVersion, flags)
	b = binary.AppendUvarint(b, f.To)
	b = appendText(b, f.NodeID)
	for _, v := range [...]uint64{
		f.Term, f.Leader, f.AckIncarnation, f.AckSeq, f.Revision, uint64(f.UpSince),
		uint64(f.Grant), f.GrantIncarnation, f.GrantSeq, f.Held, uint64(f.OldTermAge),
	} {
		b = binary.AppendUvarint(b, v)
	}
	b = append(b, byte(len(f.Releases)))
	for _, r := range f.Releases {
		if len(r.Group) > maxText {
			return nil, ErrTooLarge
		}
		b = appendText(b, r.Group)
		b = binary.AppendUvarint(b, r.Epoch)
		b = binary.AppendUvarint(b, r.Incarnation)
	}
	b = append(b, byte(len(f.Driver)))
	for _, d := range f.Driver {
		b = binary.AppendUvarint(b, uint64(len(d)))
		b = append(b, d...)
	}
	if len(b)-start > MaxPacket-headerSize-tagSize {
		return nil, ErrTooLarge
	}
	return b, nil
}

func appendText(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

// ParsePayload reads a payload into f, whose lists it takes over. f keeps nothing
// of b.
func ParsePayload(b []byte, f *Frame) error {
	r := reader{rest: b}
	if v := r.byte(); v != payloadVersion {
		return fmt.Errorf("%w: version %d, this program speaks %d", ErrMalformed, v, payloadVersion)
	}
	flags := r.byte()
	if flags&^(flagReady|flagLeaving|flagAsks|flagUnsaved) != 0 {
		return fmt.Errorf("%w: flags %x", ErrMalformed, flags)
	}
	f.Ready, f.Leaving, f.Asks, f.Unsaved = flags&flagReady != 0, flags&flagLeaving != 0, flags&flagAsks != 0, flags&flagUnsaved != 0
	f.To = r.uint()
	if id := r.text(); f.NodeID != string(id) { // the comparison allocates nothing
		f.NodeID = string(id)
	}
	for _, p := range [...]*uint64{&f.Term, &f.Leader, &f.AckIncarnation, &f.AckSeq, &f.Revision} {
		*p = r.uint()
	}
	f.UpSince = time.Duration(r.uint())
	f.Grant = time.Duration(r.uint())
	f.GrantIncarnation, f.GrantSeq, f.Held = r.uint(), r.uint(), r.uint()
	f.OldTermAge = time.Duration(r.uint())
	n := int(r.byte())
	if n > MaxReleases {
		return fmt.Errorf("%w: %d releases", ErrMalformed, n)
	}
	f.Releases = f.Releases[:0]
	for range n {
		if r.bad {
			break
		}
		f.Releases = append(f.Releases, Release{Group: string(r.text()), Epoch: r.uint(), Incarnation: r.uint()})
	}
	n = int(r.byte())
	if n > MaxDriver {
		return fmt.Errorf("%w: %d driver messages", ErrMalformed, n)
	}
	f.Driver = f.Driver[:0]
	for i := range n {
		if r.bad {
			break
		}
		room := []byte{}
		if i < cap(f.Driver) {
			if old := f.Driver[:i+1][i]; old != nil {
				room = old[:0]
			}
		}
		f.Driver = append(f.Driver, append(room, r.bytes(r.uint())...))
	}
	if r.bad || len(r.rest) != 0 {
		return ErrMalformed
	}
	return nil
}

// reader takes parts off the front; past the end it is bad and reads zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text() []byte {
	n := r.byte()
	if n > maxText {
		r.bad = true
		return nil
	}
	return r.bytes(uint64(n))
}
