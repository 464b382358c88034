package statefile

import (
	"bytes"
	"cmp"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Keys hide what is at rest and bring it back; package seal has them. nil: what is
// written is in plain, and what is hidden can't be read.
type Keys interface {
	// Seals tells whether what is written is to be hidden.
	Seals() bool
	// Seal hides data. Its result is what Sealed tells of.
	Seal(data []byte) ([]byte, error)
	// Open is the other way. Its errors say what is missing, or wrap ErrDamaged.
	Open(data []byte) ([]byte, error)
}

// ErrSealed: it is encrypted, and there is no key to it.
var ErrSealed = errors.New("encrypted")

// sealedStart is how every file begins that age has encrypted.
const sealedStart = "age-encryption.org/v1\n"

// Sealed tells whether data is encrypted.
func Sealed(data []byte) bool { return bytes.HasPrefix(data, []byte(sealedStart)) }

// Seals tells whether k hides what is written.
func Seals(k Keys) bool { return k != nil && k.Seals() }

// Open is data in plain: as it is where it is not encrypted.
func Open(k Keys, data []byte) ([]byte, error) {
	if !Sealed(data) {
		return data, nil
	}
	if k == nil {
		return nil, fmt.Errorf("%w, and no key to it was given", ErrSealed)
	}
	return k.Open(data)
}

// A sealed journal begins with a key of its own, which Keys have sealed: once, so
// that a record costs no more than its bytes. Every record is sealed with that
// key and bound to its place and to the record before it, so none can be changed,
// dropped from between others, moved, doubled, or brought from another journal. Nonces are drawn at random: a
// record that a crash tore and one that is then written in its place share none.
// What nothing can tell is a journal whose last records are cut away whole.
const keyStart = "key "

// Chain is what the next record of a journal goes on from. The zero value begins
// a journal. It is a value: a copy is taken, appended with, and kept or dropped.
type Chain struct {
	Sum  uint32 // CRC of the last record
	n    uint64 // records so far, with the key's
	last [chacha20poly1305.Overhead]byte
	aead cipher.AEAD // nil: in plain
	key  string      // of digests, as the last Begin has it
}

// DigestKey is the key of the digests in the journal; "": it has none yet.
func (c *Chain) DigestKey() string { return c.key }

// Sealed tells whether the journal so far is encrypted.
func (c *Chain) Sealed() bool { return c.aead != nil }

// Append appends e's record to dst. Where it is the first and keys seal, the
// journal's own key stands before it; where they do not, all of it is in plain.
func (c *Chain) Append(dst []byte, e *Entry, keys Keys) ([]byte, error) {
	return c.AppendAll(dst, []Entry{*e}, keys)
}

// AppendAll is Append of entries that become durable by one write, or none of them.
func (c *Chain) AppendAll(dst []byte, entries []Entry, keys Keys) ([]byte, error) {
	dst, err := c.begin(dst, keys)
	b := batch{first: c.n, of: len(entries)}
	for i := 0; i < len(entries) && err == nil; i++ {
		b.i = i + 1
		dst, err = c.append(dst, b.header(), &entries[i])
	}
	return dst, err
}

// Recode is a journal of entries that are there already, as keys have it now. digests
// is the key that the state has for these: runs of before format 1.3 name none, and
// what they know is compared with what the state has.
func Recode(entries []Entry, digests string, keys Keys) (raw []byte, c Chain, err error) {
	c.key = digests
	for i := range entries {
		if raw, err = c.Append(raw, &entries[i], keys); err != nil {
			return nil, c, err
		}
	}
	return raw, c, nil
}

// begin has a journal whose keys seal begin with its own.
func (c *Chain) begin(dst []byte, keys Keys) ([]byte, error) {
	if c.n == 0 && Seals(keys) {
		secret := make([]byte, chacha20poly1305.KeySize)
		rand.Read(secret) // never fails
		sealed, err := keys.Seal(secret)
		if err != nil {
			return dst, fmt.Errorf("write journal: %w", err)
		}
		if c.aead, err = chacha20poly1305.NewX(secret); err != nil {
			return dst, fmt.Errorf("write journal: %w", err)
		}
		dst = c.record(dst, append([]byte(keyStart), base64.StdEncoding.EncodeToString(sealed)...))
	}
	return dst, nil
}

func (c *Chain) append(dst []byte, header string, e *Entry) ([]byte, error) {
	if e.Begin != nil {
		begin := *e.Begin
		if begin.DigestKey = cmp.Or(c.key, begin.DigestKey); begin.DigestKey == "" {
			begin.DigestKey = NewDigestKey()
		}
		one := *e
		one.Begin, e, c.key = &begin, &one, begin.DigestKey
	}
	text, err := encodeEntry(e, c.key)
	if err != nil {
		return dst, err
	}
	if c.aead == nil {
		return c.record(dst, append([]byte(header), text...)), nil
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(text)+chacha20poly1305.Overhead)
	rand.Read(nonce)
	sealed := c.aead.Seal(nonce, nonce, text, c.place())
	copy(c.last[:], sealed[len(sealed)-len(c.last):])
	return c.record(dst, base64.StdEncoding.AppendEncode([]byte(header), sealed)), nil
}

// place is what a sealed record is bound to.
func (c *Chain) place() []byte {
	return append(binary.BigEndian.AppendUint64([]byte("clusterplan journal"), c.n), c.last[:]...)
}

// open reads what stands in a record behind its sum: an entry as JSON, or, of a
// sealed journal's first record, nothing, but its key is known then.
func (c *Chain) open(text []byte, keys Keys) ([]byte, error) {
	if coded, ok := bytes.CutPrefix(text, []byte(keyStart)); ok && c.n == 0 {
		sealed, err := base64.StdEncoding.AppendDecode(nil, coded)
		if err != nil || !Sealed(sealed) {
			return nil, fmt.Errorf("%w: the journal's key is none", ErrDamaged)
		}
		secret, err := Open(keys, sealed)
		if err != nil {
			return nil, err
		}
		if c.aead, err = chacha20poly1305.NewX(secret); err != nil {
			return nil, fmt.Errorf("%w: the journal's key is none", ErrDamaged)
		}
		return nil, nil
	}
	if c.aead == nil {
		return text, nil
	}
	sealed, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || len(sealed) < chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return nil, errors.New("it is not encrypted, and the records before it are")
	}
	plain, err := c.aead.Open(nil, sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:], c.place())
	if err != nil {
		return nil, errors.New("it was changed, or does not belong in this place")
	}
	copy(c.last[:], sealed[len(sealed)-len(c.last):])
	return plain, nil
}
