// Package statefile is what an apply knows of the world between two runs: the
// snapshot (State), the journal beside it (Entry), their codecs and versions.
//
// # Guarantees
//
// An object's intent is durable before its provider is called, and its result
// before the next step rests on it. Whatever moment the program dies at, the
// snapshot with its journal folded in says what was done, what was begun and
// what was not. A file that is damaged, newer than this program, or of another
// lineage is refused, never overwritten. A Store keeps them (localstore: as files), under its Lock.
package statefile

import (
	"encoding/json"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// FormatVersion of the snapshot and the journal that this program writes.
const FormatVersion = "1.3"

// State is the snapshot.
type State struct {
	FormatVersion string            `json:"format_version"`
	Program       string            `json:"program"`              // version that wrote it
	Serial        uint64            `json:"serial"`               // grows with each write of the snapshot
	Lineage       string            `json:"lineage"`              // random, given once
	Cluster       *Cluster          `json:"cluster,omitempty"`    // nil before the first apply and after destroy
	DigestKey     string            `json:"digest_key,omitempty"` // of sensitive values; base64, given once
	Objects       []Object          `json:"objects"`              // in address order
	Outputs       map[string]Output `json:"outputs,omitempty"`
	Definition    Definition        `json:"definition"`
	History       History           `json:"history,omitempty"` // applies, oldest first
	// Variables are those that applies of History used, by a digest of them: what
	// stays the same from one to the next is there once. VariablesOf reads them.
	Variables map[string]json.RawMessage `json:"variables,omitempty"`
	Checksum  string                     `json:"checksum"` // of everything else
}

// Cluster is the identity and the secrets of the cluster, made at first apply.
type Cluster struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	CACert string `json:"ca_cert"` // PEM
	CAKey  string `json:"ca_key"`  // PEM, PKCS 8
	Key    string `json:"key"`     // base64 of 32 bytes, seals the frames
}

// Definition says which version of the definition was applied last.
type Definition struct {
	Git   string `json:"git,omitempty"`
	Dirty bool   `json:"dirty,omitempty"`
	// Broken are the guarantees that did not hold with it: the apply was told to
	// go on all the same (--allow-broken-guarantee).
	Broken []string `json:"broken_guarantees,omitempty"`
}

// Object is one object that is there, or half there.
type Object struct {
	Addr           addr.Address    `json:"addr"`
	Type           string          `json:"type"`                 // node, cluster, group; a resource's own type
	Provider       string          `json:"provider"`             // local, confdb
	ID             string          `json:"id"`                   // never changes
	Attributes     json.RawMessage `json:"attributes"`           // cty JSON of the provider's planned or read value, by its schema
	Private        json.RawMessage `json:"private,omitempty"`    // the provider's own
	DependsOn      []addr.Address  `json:"depends_on,omitempty"` // direct ones
	Phases         []string        `json:"phases,omitempty"`     // of a create or delete under way: those that are done
	Tainted        string          `json:"tainted,omitempty"`    // why it has to be made again
	PreventDestroy bool            `json:"prevent_destroy,omitempty"`
	Sensitive      []string        `json:"sensitive,omitempty"` // attributes that the definition calls so: never shown, and written as digests
}

// Output is an output's last value.
type Output struct {
	Value     json.RawMessage `json:"value"` // cty JSON; null where sensitive
	Type      json.RawMessage `json:"type"`
	Sensitive bool            `json:"sensitive,omitempty"`
	Digest    string          `json:"digest,omitempty"` // of the value, where that is sensitive; "": not known
}

// Entry is one record of the journal. Exactly one of the pointers is set.
type Entry struct {
	Time    time.Time `json:"time"`
	Begin   *Begin    `json:"begin,omitempty"`
	Cluster *Cluster  `json:"cluster,omitempty"` // identity made
	Intent  *Intent   `json:"intent,omitempty"`
	Result  *Result   `json:"result,omitempty"`
	Moved   *Moved    `json:"moved,omitempty"`
}

// Begin opens a run.
type Begin struct {
	Format     string     `json:"format,omitempty"` // FormatVersion of who wrote it; "": 1.0
	Run        string     `json:"run"`
	Serial     uint64     `json:"serial"` // of the snapshot that it rests on
	Lineage    string     `json:"lineage"`
	DigestKey  string     `json:"digest_key,omitempty"` // of the state
	Generation uint64     `json:"generation"`           // of the lock
	Who        string     `json:"who"`
	Holder     *Holder    `json:"holder,omitempty"` // of the lock
	Definition Definition `json:"definition"`
	Action     string     `json:"action,omitempty"` // as in Applied
	Counts     Counts     `json:"counts,omitzero"`
	// Variables that the definition has, a list of Variable by name.
	Variables json.RawMessage `json:"variables,omitempty"`
}

// Holder is the process that a run was begun in. Its id and start mean something
// within one boot and one namespace of process ids.
type Holder struct {
	Lock      string `json:"lock"` // id
	Host      string `json:"host"`
	PID       int    `json:"pid"`
	Started   uint64 `json:"started"`
	Boot      string `json:"boot"`
	Namespace string `json:"namespace"`
}

// Intent says what is about to be done to an object; Object is what is aimed
// at (its ID is given here, so that a cut-off create is found again by it).
type Intent struct {
	Addr   addr.Address `json:"addr"`
	Action string       `json:"action"` // create | update | delete | replace | import
	Phase  string       `json:"phase,omitempty"`
	Object *Object      `json:"object,omitempty"`
}

// Result says what became of it. Object is what is there now; nil with
// Gone: nothing. Error is for people; the object stays as given.
type Result struct {
	Addr   addr.Address `json:"addr"`
	Phase  string       `json:"phase,omitempty"`
	Object *Object      `json:"object,omitempty"`
	Gone   bool         `json:"gone,omitempty"`
	Error  string       `json:"error,omitempty"`
}
