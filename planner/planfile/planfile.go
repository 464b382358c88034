// Package planfile is what `plan --out` writes and `apply FILE` carries out: a
// plan with all that it was made from, so that no directory has to be read
// again. It is pure: bytes in, bytes out; the caller reads and writes files.
//
// A file holds what was read of the definition's directory (Source, as Recorder
// kept it; FS gives it back), the variables' values, the options that plan was
// given, what the plan rests on (RestsOn), and the plan as it was shown. An apply
// makes the plan once more from the same definition and today's world, and does
// it only where that is what was shown (StaleState, StalePlan).
//
// # Guarantees
//
// The same plan gives the same bytes. A file that is cut, changed, of a newer
// format or no plan file at all is an error; reading one never panics, runs
// nothing, and takes memory in proportion to its size. The checksum finds
// accidents, not forgers: whoever can write the file says what is applied.
//
// Start reading at File, then codec.go, sources.go (the definition's files) and
// stale.go.
package planfile

import (
	"encoding/json"
	"errors"
)

// FormatVersion of the files that this program writes.
const FormatVersion = "1.0"

// Kind stands first in each file.
const Kind = "clusterplan plan"

// Limit is the size that no plan file exceeds.
const Limit = 1 << 30

// Errors, wrapped with what and where.
var (
	ErrNotPlan = errors.New("it is no plan file")
	ErrDamaged = errors.New("it is damaged")
	ErrNewer   = errors.New("a newer clusterplan wrote it")
)

// File is a plan file.
type File struct {
	Program   string // version that wrote it
	Dir       string // of the definition, as it was given
	Abs       string // the same, absolute: state and nodes lie there
	Options   Options
	RestsOn   RestsOn
	Variables []Variable      // by name
	Sources   []Source        // by path
	Plan      json.RawMessage // `plan --json`
	Text      string          // the plan for people, with colours
}

// Options are what plan was told. Addresses are in their canonical form.
type Options struct {
	Mode            string   `json:"mode"`
	Replace         []string `json:"replace,omitempty"`
	Targets         []string `json:"targets,omitempty"`
	Excludes        []string `json:"excludes,omitempty"`
	NoRefresh       bool     `json:"no_refresh,omitempty"`
	AllowQuorumLoss bool     `json:"allow_quorum_loss,omitempty"`
	Pairs           bool     `json:"pairs,omitempty"`
	Ref             string   `json:"ref,omitempty"`      // the revision that was planned; "": the directory's files
	Rollback        string   `json:"rollback,omitempty"` // the run of the state's history that it goes back to
}

// RestsOn is what must not have changed when the plan is applied.
type RestsOn struct {
	Lineage        string `json:"lineage"` // of the state; "" where there was none
	Serial         uint64 `json:"serial"`
	Journal        int    `json:"journal"` // records of runs that did not finish
	ConfigRevision uint64 `json:"config_revision"`
}

// Variable is a variable's value.
type Variable struct {
	Name  string          `json:"name"`
	Type  json.RawMessage `json:"type"`  // cty's JSON form of types
	Value json.RawMessage `json:"value"` // cty's JSON form, of that type
}
