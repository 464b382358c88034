package confdb

import (
	"fmt"
	"slices"
)

// Keyring are the frame keys and how far a rotation is. A rotation takes three
// updates: the new key is in the state, and so with every member, while frames
// are sealed with the old one; once every member that answers has it, frames are
// sealed with the new one, and both are taken; once all of them do so, the old
// one is forgotten. The leader takes the steps (core), whoever leads by then.
type Keyring struct {
	Keys   []FrameKey `json:"keys"`   // ascending; the first, generation 0, lies in each node's directory
	Send   uint32     `json:"send"`   // generation that frames are sealed with
	Oldest uint32     `json:"oldest"` // older ones are refused
	Since  uint64     `json:"since"`  // Revision of the newest step
}

// FrameKey is a key of 32 bytes.
type FrameKey struct {
	Generation uint32 `json:"generation"`
	Key        []byte `json:"key"`
}

// RotateKey begins a rotation; the key is made by whoever asks for it.
type RotateKey struct {
	Key []byte `json:"key"`
}

// KeyPhase is the next step, worked out from the ring of Since.
type KeyPhase struct {
	Since uint64 `json:"since"`
}

// Newest is the highest generation there is.
func (k *Keyring) Newest() uint32 {
	if k == nil || len(k.Keys) == 0 {
		return 0
	}
	return k.Keys[len(k.Keys)-1].Generation
}

// Turning tells whether a rotation is under way.
func (k *Keyring) Turning() bool { return k != nil && k.Oldest != k.Newest() }

// Phase is how far a rotation is: "" (none under way), distribute or switch.
func (k *Keyring) Phase() string {
	switch {
	case !k.Turning():
		return ""
	case k.Send != k.Newest():
		return "distribute"
	}
	return "switch"
}

func (s *State) rotateKey(c Command) Result {
	switch {
	case len(c.RotateKey.Key) != 32:
		return refuse(CodeInvalid, "a frame key has 32 bytes, not %d", len(c.RotateKey.Key))
	case s.Keys.Turning():
		return refuse(CodeConflict, "a rotation of the frame key to generation %d is under way; wait until it is done", s.Keys.Newest())
	}
	next := Keyring{Since: s.Revision}
	if s.Keys != nil {
		next.Keys, next.Send, next.Oldest = slices.Clone(s.Keys.Keys), s.Keys.Send, s.Keys.Oldest
	}
	generation := s.Keys.Newest() + 1
	next.Keys = append(next.Keys, FrameKey{Generation: generation, Key: slices.Clone(c.RotateKey.Key)})
	s.Keys = &next
	s.event(c, Event{Object: "cluster", Kind: KindKeyRotation, Text: c.because(fmt.Sprintf("a new frame key (generation %d) is handed out", generation))})
	return Result{}
}

func (s *State) keyPhase(c Command) Result {
	if !s.Keys.Turning() || s.Keys.Since != c.KeyPhase.Since {
		return refuse(CodeConflict, "no rotation of the frame key is at that step")
	}
	next := *s.Keys
	next.Since = s.Revision
	generation := next.Newest()
	text := fmt.Sprintf("frames are sealed with the key of generation %d: every member that answers has it", generation)
	if next.Send != generation {
		next.Send = generation
	} else {
		next.Oldest = generation
		next.Keys = slices.Clone(next.Keys[len(next.Keys)-1:])
		text = fmt.Sprintf("the frame key of generation %d is the only one: older ones are refused", generation)
	}
	s.Keys = &next
	s.event(c, Event{Object: "cluster", Kind: KindKeyRotation, Text: text, Cause: s.lastOf(KindKeyRotation)})
	return Result{}
}

// lastOf is the id of the newest event of a kind, 0: none is kept.
func (s *State) lastOf(kind string) uint64 {
	for i := range slices.Backward(s.Events) {
		if s.Events[i].Kind == kind {
			return s.Events[i].ID
		}
	}
	return 0
}
