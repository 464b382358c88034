package heartbeat

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A packet is a header in the clear, which the seal covers as well, and the
// sealed payload:
//
//	magic and version 4 | cluster 8 | key generation 4 | From 8 | Incarnation 8 | Seq 8 | payload | tag 16
//
// Each incarnation of a sender has a key of its own, made from the cluster's
// key of that generation (HKDF-SHA256), and Seq is the nonce (AES-256-GCM): a nonce never comes
// twice under one key, as incarnations are random and Seq only grows.
const (
	magic      = "CPf\x02"
	headerSize = 4 + 8 + 4 + 8 + 8 + 8
	tagSize    = 16
)

// Errors of Seal and Open.
var (
	ErrForeign = errors.New("the frame is of another cluster or program")
	ErrSeal    = errors.New("the frame's seal is broken: it was made with another key, or changed")
	ErrReplay  = errors.New("the frame came before, or is too old")
	ErrTarget  = errors.New("the frame is for another server")
	ErrKey     = errors.New("the frame is sealed with a key that this node doesn't take: an older one, or one that it has yet to get")
	ErrSeq     = errors.New("frames are sealed in the order of their Seq, each once")
)

// Key is one of the cluster's frame keys; a newer one has a higher generation.
type Key struct {
	Generation uint32 // 0: the one that a node is made with
	Bytes      []byte // 32
}

type keys struct {
	cluster [8]byte
	keys    []Key
}

func newKeys(clusterID string, key []byte) (keys, error) {
	sum := sha256.Sum256([]byte("clusterplan frames of " + clusterID))
	k := keys{cluster: [8]byte(sum[:8])}
	return k, k.take([]Key{{Bytes: key}})
}

// take replaces the keys.
func (k *keys) take(list []Key) error {
	next := make([]Key, 0, len(list))
	for _, key := range list {
		if len(key.Bytes) != 32 {
			return fmt.Errorf("the cluster's frame key has %d bytes, not 32", len(key.Bytes))
		}
		next = append(next, Key{key.Generation, slices.Clone(key.Bytes)})
	}
	k.keys = next
	return nil
}

// aead is the cipher of one incarnation's frames under the key of that
// generation; nil: there is no such key.
func (k *keys) aead(generation uint32, from, incarnation uint64) (cipher.AEAD, error) {
	i := slices.IndexFunc(k.keys, func(key Key) bool { return key.Generation == generation })
	if i < 0 {
		return nil, ErrKey
	}
	info := append([]byte("frames\x00"), k.cluster[:]...)
	info = binary.BigEndian.AppendUint64(info, from)
	info = binary.BigEndian.AppendUint64(info, incarnation)
	key, err := hkdf.Key(sha256.New, k.keys[i].Bytes, nil, string(info), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Generation is the generation of the key that a packet of the cluster claims
// to be sealed with. Nothing vouches for it.
func (k *keys) Generation(packet []byte) (uint32, bool) {
	if len(packet) < headerSize+tagSize || string(packet[:4]) != magic || string(packet[4:12]) != string(k.cluster[:]) {
		return 0, false
	}
	return binary.BigEndian.Uint32(packet[12:]), true
}

func nonce(seq uint64) (n [12]byte) {
	binary.BigEndian.PutUint64(n[4:], seq)
	return n
}

// Sealer seals one incarnation's frames. It is used by one goroutine.
type Sealer struct {
	keys
	from, incarnation uint64
	generation        uint32
	gcm               cipher.AEAD
	last              uint64
	payload           []byte // reused
	nonce             [12]byte
}

// NewSealer makes the sealer of this agent's frames. key is the cluster's 32
// bytes; incarnation is random at each start.
func NewSealer(clusterID string, key []byte, from, incarnation uint64) (*Sealer, error) {
	k, err := newKeys(clusterID, key)
	if err != nil {
		return nil, err
	}
	s := &Sealer{keys: k, from: from, incarnation: incarnation}
	if s.gcm, err = s.aead(0, from, incarnation); err != nil {
		return nil, fmt.Errorf("frame key: %w", err)
	}
	return s, nil
}

// Use seals with another key from now on. Seq goes on.
func (s *Sealer) Use(k Key) error {
	next := s.keys
	if err := next.take([]Key{k}); err != nil {
		return err
	}
	gcm, err := next.aead(k.Generation, s.from, s.incarnation)
	if err != nil {
		return fmt.Errorf("frame key: %w", err)
	}
	s.keys, s.gcm, s.generation = next, gcm, k.Generation
	return nil
}

// Seal appends f as a packet to dst. From and Incarnation are the sealer's;
// Seq is f's and has to grow (ErrSeq). Of more releases than fit, each frame
// takes some, others each time.
func (s *Sealer) Seal(dst []byte, f *Frame) ([]byte, error) {
	if f.Seq <= s.last {
		return nil, ErrSeq // the nonce would come twice
	}
	n := len(f.Releases)
	packet, err := s.seal(dst, f, min(n, MaxReleases))
	for fit := min(n, MaxReleases); errors.Is(err, ErrTooLarge) && fit > 0; {
		fit /= 2 // long names: rather fewer releases than no frame
		packet, err = s.seal(dst, f, fit)
	}
	return packet, err
}

// seal takes fit of the releases.
func (s *Sealer) seal(dst []byte, f *Frame, fit int) ([]byte, error) {
	if n := len(f.Releases); n > fit {
		part := *f
		part.Releases = make([]Release, 0, fit)
		// Scattered: each recipient sees only some Seqs, at a stride of its own.
		at := int(f.Seq * 0x9e3779b97f4a7c15 >> 32 % uint64(n))
		for i := range fit {
			part.Releases = append(part.Releases, f.Releases[(at+i)%n])
		}
		f = &part
	}
	var err error
	if s.payload, err = AppendPayload(s.payload[:0], f); err != nil {
		return nil, err
	}
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, s.cluster[:]...)
	dst = binary.BigEndian.AppendUint32(dst, s.generation)
	dst = binary.BigEndian.AppendUint64(dst, s.from)
	dst = binary.BigEndian.AppendUint64(dst, s.incarnation)
	dst = binary.BigEndian.AppendUint64(dst, f.Seq)
	s.nonce = nonce(f.Seq)
	dst = s.gcm.Seal(dst, s.nonce[:], s.payload, dst[start:start+headerSize])
	s.last = f.Seq
	return dst, nil
}

// Bounds of what an Opener remembers.
const (
	maxSenders      = 1024
	maxIncarnations = 4
)

// Opener opens the frames that come in. It believes each frame of a sender's
// incarnation once, in any order within 64 of the newest.
//
// Which of a sender's incarnations lives it can't know: a recorded frame of an
// old one is genuine. So frames of up to maxIncarnations pass side by side,
// each with its own memory, and whoever uses them believes one only if it
// echoes the reader's own incarnation (AckIncarnation), which a recording can't
// do. Then Confirm keeps that incarnation from being forgotten, whatever is
// replayed. An Opener is used by one goroutine.
type Opener struct {
	keys
	self    uint64
	senders map[uint64]*sender
	newest  uint32 // generation of the newest key that a believed frame was sealed with
	clock   uint64 // counts believed frames: an order of age without a clock
	plain   []byte // reused
	nonce   [12]byte
}

type sender struct {
	confirmed uint64
	used      uint64
	nodeID    string
	lives     []life
}

// life is an incarnation: its key, and a window of the Seqs that came.
type life struct {
	incarnation uint64
	generation  uint32 // of gcm's key
	gcm         cipher.AEAD
	newest      uint64
	seen        uint64 // bit i: newest-i came
	used        uint64
}

// NewOpener makes the opener of the server self.
func NewOpener(clusterID string, key []byte, self uint64) (*Opener, error) {
	k, err := newKeys(clusterID, key)
	if err != nil {
		return nil, err
	}
	return &Opener{keys: k, self: self, senders: map[uint64]*sender{}}, nil
}

// SetKeys replaces the keys that frames are opened with.
func (o *Opener) SetKeys(list []Key) error { return o.take(list) }

// Newest is the generation of the newest key that a believed frame was sealed
// with: whoever seals with it knows that every member has it.
func (o *Opener) Newest() uint32 { return o.newest }

// Open reads a packet. Nothing of it is remembered unless its seal holds, and
// the frame keeps nothing of the packet.
func (o *Opener) Open(packet []byte) (Frame, error) {
	var f Frame
	if err := o.OpenTo(&f, packet); err != nil {
		return Frame{}, err
	}
	return f, nil
}

// OpenTo is Open into a frame that is not needed any more: it takes that one's
// lists over, which spares the garbage. After an error f is to be used for nothing
// else.
func (o *Opener) OpenTo(f *Frame, packet []byte) error {
	generation, ok := o.Generation(packet)
	if !ok || len(packet) > MaxPacket {
		return ErrForeign
	}
	f.From = binary.BigEndian.Uint64(packet[16:])
	f.Incarnation = binary.BigEndian.Uint64(packet[24:])
	f.Seq = binary.BigEndian.Uint64(packet[32:])
	s := o.senders[f.From]
	l := s.life(f.Incarnation)
	gcm := l.gcm
	if !slices.ContainsFunc(o.keys.keys, func(k Key) bool { return k.Generation == generation }) {
		return ErrKey
	}
	if gcm == nil || l.generation != generation {
		var err error
		if gcm, err = o.aead(generation, f.From, f.Incarnation); err != nil {
			return ErrSeal
		}
	}
	if f.Seq == 0 || l.came(f.Seq) {
		return ErrReplay
	}
	o.nonce = nonce(f.Seq)
	var err error
	if o.plain, err = gcm.Open(o.plain[:0], o.nonce[:], packet[headerSize:], packet[:headerSize]); err != nil {
		return ErrSeal
	}
	f.NodeID = ""
	if s != nil {
		f.NodeID = s.nodeID // read over: saves a copy of what is the same each time
	}
	if err := ParsePayload(o.plain, f); err != nil {
		return err
	}
	if f.To != 0 && f.To != o.self {
		return ErrTarget
	}
	o.clock++
	if s == nil {
		s = o.newSender(f.From)
	}
	s.used, s.nodeID = o.clock, f.NodeID
	s.mark(f.Incarnation, gcm, generation, f.Seq, o.clock)
	o.newest = max(o.newest, generation)
	return nil
}

// Genuine tells whose packet it is, if its seal holds; it may have come before,
// and nothing is remembered of it.
func (o *Opener) Genuine(packet []byte) (from uint64, ok bool) {
	generation, ok := o.Generation(packet)
	if !ok || len(packet) > MaxPacket {
		return 0, false
	}
	from = binary.BigEndian.Uint64(packet[16:])
	l := o.senders[from].life(binary.BigEndian.Uint64(packet[24:]))
	if l.gcm == nil || l.generation != generation {
		return 0, false
	}
	o.nonce = nonce(binary.BigEndian.Uint64(packet[32:]))
	o.plain, _ = l.gcm.Open(o.plain[:0], o.nonce[:], packet[headerSize:], packet[:headerSize])
	return from, o.plain != nil
}

// Confirm says that this incarnation of the sender lives: it echoed one of
// this server's own frames.
func (o *Opener) Confirm(from, incarnation uint64) {
	if s := o.senders[from]; s != nil {
		s.confirmed = incarnation
	}
}

func (o *Opener) newSender(from uint64) *sender {
	if len(o.senders) >= maxSenders {
		var oldest uint64
		used := ^uint64(0)
		for id, s := range o.senders {
			if s.used < used {
				oldest, used = id, s.used
			}
		}
		delete(o.senders, oldest)
	}
	s := &sender{}
	o.senders[from] = s
	return s
}

// life is what is known of an incarnation; the zero life if nothing is.
func (s *sender) life(incarnation uint64) life {
	if s != nil {
		for _, l := range s.lives {
			if l.incarnation == incarnation {
				return l
			}
		}
	}
	return life{}
}

func (l *life) came(seq uint64) bool {
	if seq > l.newest {
		return false
	}
	back := l.newest - seq
	return back >= 64 || l.seen&(1<<back) != 0
}

func (s *sender) mark(incarnation uint64, gcm cipher.AEAD, generation uint32, seq, now uint64) {
	i := slices.IndexFunc(s.lives, func(l life) bool { return l.incarnation == incarnation })
	if i < 0 {
		i = s.room()
		s.lives[i] = life{incarnation: incarnation}
	}
	l := &s.lives[i]
	l.used, l.gcm, l.generation = now, gcm, generation
	if seq > l.newest {
		if ahead := seq - l.newest; ahead < 64 {
			l.seen <<= ahead
		} else {
			l.seen = 0
		}
		l.newest = seq
	}
	l.seen |= 1 << (l.newest - seq)
}

// room is a place for one more incarnation: a new one, or that of the one
// silent for longest that is not confirmed.
func (s *sender) room() int {
	if len(s.lives) < maxIncarnations {
		s.lives = append(s.lives, life{})
		return len(s.lives) - 1
	}
	at := -1
	for i, l := range s.lives {
		if l.incarnation != s.confirmed && (at < 0 || l.used < s.lives[at].used) {
			at = i
		}
	}
	return at
}
