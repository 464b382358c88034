package httpstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/remote"
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
	}
	return &e, nil
}

// image is what a store elsewhere has.
func (e *envelope) image() *remote.Image {
	if e == nil {
		return nil
	}
	return &remote.Image{Lineage: e.Lineage, State: e.State, Journal: e.Journal}
}

// decode opens an envelope; of nil, the empty state.
func (s *Store) decode(e *envelope) (*remote.Loaded, error) {
	l, err := remote.Load(e.image(), s.opts.Keys)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", s.Path(), err)
	}
	return l, nil
}

// same tells whether the server has what was sent, whatever it did to its layout.
func (e *envelope) same(o *envelope) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.Write == o.Write && e.Serial == o.Serial && bytes.Equal(e.State, o.State) && bytes.Equal(e.Journal, o.Journal)
}
