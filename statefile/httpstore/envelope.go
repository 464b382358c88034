package httpstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/clusterplan/clusterplan/statefile"
)

// envelopeVersion is that of what is sent.
const envelopeVersion = 1

// envelope is what is sent. Serial and lineage are where servers look for them.
// State and journal are encrypted.
type envelope struct {
	Version  int    `json:"clusterplan_envelope"`
	Serial   uint64 `json:"serial"`  // grows with each write, also of the journal alone
	Lineage  string `json:"lineage"` // the state's
	Write    string `json:"write"`   // of this write alone
	State    []byte `json:"state,omitempty"`
	Journal  []byte `json:"journal,omitempty"`
	Checksum string `json:"checksum"`
}

func (e *envelope) sum() string {
	h := sha256.New()
	for _, part := range [][]byte{binary.BigEndian.AppendUint64(nil, e.Serial), []byte(e.Lineage), []byte(e.Write), e.State, e.Journal} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (e *envelope) encode() ([]byte, error) {
	e.Version, e.Checksum = envelopeVersion, e.sum()
	return json.Marshal(e)
}

func decodeEnvelope(data []byte) (*envelope, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("%w: what the server has is no JSON object that clusterplan wrote (%v)", statefile.ErrDamaged, err)
	}
	switch {
	case e.Version == 0:
		return nil, fmt.Errorf("%w: what the server has was not written by clusterplan; name another address", statefile.ErrDamaged)
	case e.Version > envelopeVersion:
		return nil, fmt.Errorf("%w: it was sent in version %d, this program reads %d; use the clusterplan that wrote it, or a newer one", statefile.ErrNewer, e.Version, envelopeVersion)
	case e.Checksum != e.sum():
		return nil, fmt.Errorf("%w: its checksum is wrong: it was changed, or lost a part", statefile.ErrDamaged)
	case len(e.State) > 0 && !statefile.Sealed(e.State):
		return nil, fmt.Errorf("%w: what the server has is not encrypted", statefile.ErrDamaged)
	}
	return &e, nil
}

// loaded is what an envelope says.
type loaded struct {
	base    statefile.State
	journal *statefile.Journal
}

func (l *loaded) snapshot() *statefile.Snapshot {
	snap := &statefile.Snapshot{Unfinished: len(l.journal.Entries)}
	snap.State, snap.Pending = statefile.Fold(l.base, l.journal.Entries)
	return snap
}

// decode opens an envelope; of nil, the empty state.
func (s *Store) decode(e *envelope) (*loaded, error) {
	l := &loaded{journal: new(statefile.Journal)}
	if e == nil {
		return l, nil
	}
	fail := func(err error) error { return fmt.Errorf("state %s: %w", s.Path(), err) }
	if len(e.State) > 0 {
		data, err := statefile.Open(s.opts.Keys, e.State)
		if err != nil {
			return nil, fail(err)
		}
		st, _, err := statefile.Upgrade(data)
		if err != nil {
			return nil, fail(err)
		}
		l.base = *st
	}
	if len(e.Journal) == 0 {
		return l, s.agree(e, l)
	}
	var err error
	if l.journal, err = statefile.DecodeJournal(e.Journal, s.opts.Keys); err != nil {
		return nil, fail(fmt.Errorf("its journal: %w", err))
	}
	if l.journal.Torn || !l.journal.Chain.Sealed() || len(l.journal.Entries) == 0 || l.journal.Entries[0].Begin == nil {
		return nil, fail(fmt.Errorf("%w: its journal is not whole", statefile.ErrDamaged))
	}
	for i, one := range l.journal.Entries {
		b := one.Begin
		if b == nil {
			continue
		}
		if l.base.Lineage == "" && b.Serial == 0 {
			l.base.Lineage = b.Lineage
		}
		if b.Serial != l.base.Serial || b.Lineage != l.base.Lineage {
			return nil, fail(fmt.Errorf("%w in record %d of its journal: that run rests on another state", statefile.ErrDamaged, i+1))
		}
	}
	return l, s.agree(e, l)
}

// agree: what stands outside says what stands inside.
func (s *Store) agree(e *envelope, l *loaded) error {
	if e.Lineage != l.base.Lineage {
		return fmt.Errorf("state %s: %w: it is sent as %s, and is of %s", s.Path(), statefile.ErrLineage, e.Lineage, l.base.Lineage)
	}
	return nil
}

// same tells whether the server has what was sent, whatever it did to its layout.
func (e *envelope) same(o *envelope) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Write == o.Write && e.Serial == o.Serial && bytes.Equal(e.State, o.State) && bytes.Equal(e.Journal, o.Journal)
}
