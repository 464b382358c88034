package confdb

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of the key-value store. They are part of the state machine: to change
// one is to change the format.
const (
	MaxKey       = 512      // bytes of a key
	MaxValue     = 64 << 10 // bytes of a value
	MaxKV        = 16 << 20 // bytes of all keys and values, with KVOverhead for each
	KVOverhead   = 128      // bytes that an entry counts for beside its key and value
	maxKVChanges = 1000     // changes that a watch can start from
)

// KV is the applications' key-value store: a space for each group (by its id),
// and one for all of the cluster, ClusterSpace.
type KV struct {
	Spaces    map[string]*KVSpace
	Changes   []KVChange // the newest maxKVChanges, oldest first
	Compacted uint64     // revision of the newest change that is no longer among them
	Bytes     int64      // of all entries, as MaxKV counts
}

// ClusterSpace is the name of the space that belongs to no group.
const ClusterSpace = ""

// KVSpace is one space; Keys are those of Entries, sorted.
type KVSpace struct {
	Keys    []string
	Entries map[string]KVEntry
}

// KVEntry is a value. Its bytes are never changed in place.
type KVEntry struct {
	Value    []byte
	Revision uint64 // of the update that wrote it: what a compare-and-swap compares
	Created  uint64 // of the update that made the key
}

// KVChange says that a key was written or deleted; what it is now stands in the
// space.
type KVChange struct {
	Revision uint64
	Space    string
	Key      string
}

// KVWrite puts or deletes a key.
type KVWrite struct {
	Space  string  `json:"space,omitempty"` // group id, or ClusterSpace
	Key    string  `json:"key"`
	Value  []byte  `json:"value,omitempty"`
	Delete bool    `json:"delete,omitempty"`
	If     *uint64 `json:"if,omitempty"`    // the key's revision has to be this; 0: there is no such key; nil: whatever there is
	Epoch  uint64  `json:"epoch,omitempty"` // of the space's group; 0: any
	// Seen is a revision that the state had reached before the command was first
	// sent; 0: unknown. Past maxDone commands since, the command is refused: it
	// may have been done already, and nobody would know.
	Seen uint64 `json:"seen,omitempty"`
}

// Codes of results that only key-value writes and checkpoints have.
const (
	CodeMismatch = "mismatch" // KVWrite.If doesn't hold
	CodeFenced   = "fenced"   // the epoch is not the group's current one
	CodeLimit    = "limit"    // too large, or no room left
	CodeStale    = "stale"    // sent again too late to tell whether it was done
)

// Lookup is the entry of a key.
func (kv *KV) Lookup(space, key string) (KVEntry, bool) {
	sp := kv.Spaces[space]
	if sp == nil {
		return KVEntry{}, false
	}
	e, ok := sp.Entries[key]
	return e, ok
}

// KVItem is an entry with its key.
type KVItem struct {
	Key string
	KVEntry
}

// List are the entries of a space whose keys begin with prefix and come after
// the key after, in order of keys, at most limit; more says that there are others.
func (kv *KV) List(space, prefix, after string, limit int) (list []KVItem, more bool) {
	sp := kv.Spaces[space]
	if sp == nil {
		return nil, false
	}
	at, _ := slices.BinarySearch(sp.Keys, prefix)
	if after >= prefix {
		var found bool
		if at, found = slices.BinarySearch(sp.Keys, after); found {
			at++
		}
	}
	for ; at < len(sp.Keys) && strings.HasPrefix(sp.Keys[at], prefix); at++ {
		if len(list) == limit {
			return list, true
		}
		list = append(list, KVItem{sp.Keys[at], sp.Entries[sp.Keys[at]]})
	}
	return list, false
}

// Since are the keys of a space with that prefix that changed after a revision,
// each once, in the order of their newest change. ok is false when changes since
// then are no longer known.
func (kv *KV) Since(space, prefix string, revision uint64) (list []KVChange, ok bool) {
	if revision < kv.Compacted {
		return nil, false
	}
	seen := map[string]bool{}
	for _, c := range slices.Backward(kv.Changes) {
		if c.Revision <= revision {
			break
		}
		if c.Space == space && strings.HasPrefix(c.Key, prefix) && !seen[c.Key] {
			seen[c.Key] = true
			list = append(list, c)
		}
	}
	slices.Reverse(list)
	return list, true
}

// CheckKey says what is wrong with a key, or "".
func CheckKey(key string) string {
	switch {
	case key == "":
		return "a key is empty"
	case len(key) > MaxKey:
		return fmt.Sprintf("a key of %d bytes is too long; the most is %d", len(key), MaxKey)
	case !utf8.ValidString(key):
		return "a key is no UTF-8"
	case strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Sprintf("the key %q holds a control character", key)
	}
	return ""
}

// SpaceName is a space for people.
func (s *State) SpaceName(space string) string {
	if space == ClusterSpace {
		return "the cluster"
	}
	if g := s.Groups[space]; g != nil {
		return "group " + g.Spec.Name
	}
	return "group " + space
}
