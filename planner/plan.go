package planner

import (
	"fmt"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// FormatVersion of `plan --json`.
const FormatVersion = "1.0"

// Modes of a plan.
const (
	ModeNormal      = "normal"
	ModeDestroy     = "destroy"
	ModeRefreshOnly = "refresh-only"
)

// Plan is what an apply would do, and what that means for quorum, availability
// and the failure matrix. Its JSON is `plan --json`; lists are in address order
// (steps: in the order of the apply), so equal inputs give equal bytes.
type Plan struct {
	FormatVersion  string                  `json:"format_version"`
	Mode           string                  `json:"mode"`
	Complete       bool                    `json:"complete"`  // false: something could not be seen (Unreachable, AsOf), or is left out
	Applyable      bool                    `json:"applyable"` // there is something to do (if only to tidy up after an apply that was cut off), and it may be done
	Errored        bool                    `json:"errored"`   // Diagnostics hold an error
	Targets        []addr.Address          `json:"targets,omitempty"`
	Excludes       []addr.Address          `json:"excludes,omitempty"`
	Cluster        string                  `json:"cluster"` // name
	Serial         uint64                  `json:"serial"`  // of the state that it rests on
	ConfigRevision uint64                  `json:"config_revision"`
	AsOf           *AsOf                   `json:"as_of"` // null: read with quorum, or there is no cluster yet
	Definition     DefinitionVersion       `json:"definition"`
	Changes        []Change                `json:"changes"`
	SuggestedMoves []SuggestedMove         `json:"suggested_moves,omitempty"`
	Summary        Summary                 `json:"summary"`
	Drift          []Drift                 `json:"drift"`
	Operator       []Operator              `json:"operator"`
	Unreachable    []Unreachable           `json:"unreachable"`
	Unmanaged      []Unmanaged             `json:"unmanaged"`
	OutputChanges  map[string]OutputChange `json:"output_changes"`
	Checks         []Check                 `json:"checks"`
	Steps          []Step                  `json:"steps"`
	Quorum         *Quorum                 `json:"quorum"` // null: nothing is left (destroy)
	Availability   []Availability          `json:"availability"`
	FailoverTimes  []FailoverTime          `json:"failover_times"`
	FailureMatrix  FailureMatrix           `json:"failure_matrix"`
	Guarantees     []Guarantee             `json:"guarantees"`
	Diagnostics    []Diagnostic            `json:"diagnostics"`

	work *Work
}

// AsOf says that the database was read without quorum: the newest committed
// copy that answered, which may be behind.
type AsOf struct {
	Revision uint64 `json:"revision"`
	Quorum   bool   `json:"quorum"`
	Text     string `json:"text"` // "as of revision 41, no quorum"
}

// DefinitionVersion says which version of the definition is planned.
type DefinitionVersion struct {
	Git   *string `json:"git"` // commit, null outside of a repository
	Dirty bool    `json:"dirty"`
}

// Actions, as Terraform writes them.
var (
	ActionNoOp             = []string{"no-op"}
	ActionCreate           = []string{"create"}
	ActionRead             = []string{"read"}
	ActionUpdate           = []string{"update"}
	ActionDelete           = []string{"delete"}
	ActionDeleteThenCreate = []string{"delete", "create"}
	ActionCreateThenDelete = []string{"create", "delete"}
	ActionForget           = []string{"forget"}
)

// Reasons of an action. The list is closed; docs/planner.md explains each.
const (
	ReasonNone            = ""                    // no-op
	ReasonNotInState      = "not_in_state"        // create: the definition has it, the state doesn't
	ReasonCutOff          = "cut_off"             // begun by an apply that did not come to its end
	ReasonGone            = "gone"                // create, delete, forget: it was there and is gone
	ReasonChanged         = "changed"             // update: the definition says something else now
	ReasonDrifted         = "drifted"             // update: the definition is the same, the object isn't
	ReasonCannotUpdate    = "cannot_update"       // replace: an attribute forces it (replace_paths)
	ReasonTainted         = "tainted"             // replace: an earlier apply left it broken
	ReasonRequested       = "requested"           // replace: asked for with --replace
	ReasonTriggered       = "replace_by_triggers" // replace: what its replace_triggered_by names changes
	ReasonStandsOn        = "stands_on"           // replace: what it stands on is made anew
	ReasonReboots         = "reboots"             // update: of a node whose machine reboots
	ReasonNotInDefinition = "not_in_definition"   // delete: the state has it, the definition doesn't
	ReasonDestroy         = "destroy"             // delete: destroy was asked for
	ReasonRemoved         = "removed"             // forget: a removed block with destroy = false
)

// Change is what happens to one object. Of a group and its resources each has
// its own; they are applied as one.
type Change struct {
	Address         addr.Address
	PreviousAddress *addr.Address // it was called so (moved)
	Type            string        // cluster, node, group; a resource's own type
	Actions         []string
	Reason          string
	Before          cty.Value // cty.NilVal: nothing; sensitive parts are marked
	After           cty.Value // cty.NilVal: nothing; unknown parts are unknown
	Importing       *string   // it comes into the state, found by this
	ReplacePaths    []string
	Attributes      []AttributeChange // those that differ; of a create Differing lists them
	Impact          spec.Impact       // the strongest of the attributes' and the provider's
	Phases          []string          // of a node or the cluster, in order
	DependsOn       []addr.Address    // direct ones, that this waits for
	Why             []string          // for people: "not in state", "drifted: agent not running"

	made *shape // of a create
}

// Action is the action in one word: create, update, replace, delete, forget, read or no-op.
func (c *Change) Action() string {
	if len(c.Actions) == 2 {
		return "replace"
	}
	if len(c.Actions) == 0 {
		return "no-op"
	}
	return c.Actions[0]
}

// AttributeChange is the change of one attribute. Path is written as
// `restart.threshold`, `capacity["cpu"]`, `command[1]`.
type AttributeChange struct {
	Path      string
	Before    cty.Value // cty.NilVal: not there
	After     cty.Value // cty.NilVal: not there
	Sensitive bool
	Impact    spec.Impact
	Cause     string // CauseDefinition or CauseDrift
}

// Causes of an attribute's change.
const (
	CauseDefinition = "definition"
	CauseDrift      = "drift"
)

// Summary counts changes; resources count on their own.
type Summary struct {
	Create  int `json:"create"`
	Update  int `json:"update"`
	Replace int `json:"replace"`
	Delete  int `json:"delete"`
	Forget  int `json:"forget"`
	Move    int `json:"move"`
	Import  int `json:"import"` // objects that come into the state; resources with their group
	NoOp    int `json:"no_op"`
}

// Any tells whether there is anything to do.
func (s Summary) Any() bool {
	return s.Create+s.Update+s.Replace+s.Delete+s.Forget+s.Move+s.Import > 0
}

// Drift is what is not as the state says, though no one applied it.
type Drift struct {
	Address addr.Address `json:"address"`
	Type    string       `json:"type"`
	Gone    bool         `json:"gone"`
	What    []string     `json:"what"`    // words: "agent not running", "stop_within differs"
	Paths   []string     `json:"paths"`   // attributes that differ
	Actions []string     `json:"actions"` // what the plan does about it
}

// Operator is an operator's order that holds now. It is kept.
type Operator struct {
	Address addr.Address `json:"address"`
	Order   string       `json:"order"` // pause | drain | move | online | offline
	To      string       `json:"to,omitempty"`
	Author  string       `json:"author"`
	Reason  string       `json:"reason"`
	Time    time.Time    `json:"time"`
}

// Unreachable is an object that could not be seen; its prior values are kept.
type Unreachable struct {
	Address addr.Address `json:"address"`
	Reason  string       `json:"reason"`
}

// Unmanaged is an object in the database that someone else made.
type Unmanaged struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	ID        string `json:"id"`
	ManagedBy string `json:"managed_by"`
}

// OutputChange is the change of an output.
type OutputChange struct {
	Actions   []string  `json:"actions"`
	Before    cty.Value `json:"-"`
	After     cty.Value `json:"-"`
	Sensitive bool      `json:"sensitive"`
}

// Guarantee is a guarantee block's result in the cluster as it is once the plan
// is carried out.
type Guarantee struct {
	Name          string         `json:"name"`
	Address       addr.Address   `json:"address"`
	Groups        []addr.Address `json:"groups"`
	Holds         bool           `json:"holds"`
	WorstMS       int64          `json:"worst_ms"`                  // the longest failover of its groups; -1: one does not fail over by itself
	MaxDowntimeMS int64          `json:"max_downtime_ms,omitempty"` // 0: none is asked for
	Broken        []string       `json:"broken,omitempty"`          // why it does not hold, for people
}

// Step is one phase that touches a node, in the order of the apply.
type Step struct {
	N       int          `json:"n"` // from 1
	Address addr.Address `json:"address"`
	Phase   string       `json:"phase"`             // providers.Phase*
	Up      int          `json:"up"`                // votes that are up while it is done
	Needed  int          `json:"needed"`            // votes that are needed then
	Refused bool         `json:"refused,omitempty"` // it would leave the cluster without quorum
	Why     string       `json:"why,omitempty"`
}

// Quorum is the votes after the apply, and the fewest that are up on the way.
type Quorum struct {
	Model  spec.QuorumModel `json:"model"`
	Votes  int              `json:"votes"`
	Needed int              `json:"needed"`
	Lowest int              `json:"lowest"`
	Lost   bool             `json:"lost"` // a step is refused: exit code 6
}

// Availability is what the apply's steps do to a group that runs.
type Availability struct {
	Group         addr.Address  `json:"group"`
	From          *addr.Address `json:"from"` // node; null: nobody
	To            *addr.Address `json:"to"`   // node; null: nowhere, it is down meanwhile
	Interruptions int           `json:"interruptions"`
	MaxMS         int64         `json:"max_ms"` // of the longest of them; -1: until the node is back
	Why           string        `json:"why"`
}

// SlowElection is what an election adds to a FailoverTime at most, in about 1 of
// 500 losses of a leader: where votes are split. Source: runtime/sim, by planner/scenario's TestMatrixTruth.
const SlowElection = 450 * time.Millisecond

// FailoverTime is the longest that a group is down when its owner dies, but for a
// SlowElection.
type FailoverTime struct {
	Group     addr.Address   `json:"group"`
	WorstMS   int64          `json:"worst_ms"`
	Exclusive bool           `json:"exclusive"`          // all of it dies with its lease, or its takeover waits for a fence or a watchdog
	NotHeld   []spec.NotHeld `json:"not_held,omitempty"` // what doesn't
	Terms     FailoverTerms  `json:"terms"`
	BeforeMS  *int64         `json:"before_ms,omitempty"` // WorstMS before the apply; nil: no such group, or none that fails over by itself
	Same      bool           `json:"-"`                   // all of it is as before
}

// FailoverTerms are the summands of FailoverTime.WorstMS, in milliseconds.
type FailoverTerms struct {
	Lease      int64 `json:"lease"`
	StopWithin int64 `json:"stop_within"`
	Kill       int64 `json:"kill"`
	Drift      int64 `json:"drift"`              // the clocks' rates, rounding included
	Fence      int64 `json:"fence,omitempty"`    // where the group waits for one, in place of stop_within and kill: every level, each call up to its time-out
	Watchdog   int64 `json:"watchdog,omitempty"` // where the group relies on one: the longest time-out of its possible owners'
	Device     int64 `json:"device,omitempty"`   // single_quorum: when the first look at the device comes, that its new owner counts from
	Depends    int64 `json:"depends,omitempty"`  // how much longer than that the groups take that it depends on
	Commit     int64 `json:"commit"`             // the new owner is agreed on
	Start      int64 `json:"start"`              // first answer, of a program that starts at once
}

// Sum writes the summands out, in milliseconds, in the order in which they pass.
func (t FailoverTerms) Sum() string {
	var parts []string
	add := func(what string, ms int64, always bool) {
		if always || ms > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", what, ms))
		}
	}
	add("device", t.Device, false)
	add("watchdog", t.Watchdog, false)
	add("lease", t.Lease, true)
	if t.Fence == 0 {
		add("stop", t.StopWithin, true)
		add("kill", t.Kill, true)
	}
	add("clocks", t.Drift, true)
	add("fence, at its time-outs,", t.Fence, false)
	add("dependencies", t.Depends, false)
	add("commit", t.Commit, true)
	add("start", t.Start, true)
	return strings.Join(parts, " + ")
}

// FailureMatrix says for every node, pair and zone, and for the quorum device,
// what happens when it fails.
type FailureMatrix struct {
	Before      *Matrix  `json:"before"` // null: there is no cluster yet
	After       *Matrix  `json:"after"`  // null: there is none any more
	Regressions []string `json:"regressions"`
}

// Matrix is one side of it.
type Matrix struct {
	Rows  []MatrixRow `json:"rows"`
	Pairs bool        `json:"pairs"` // false: left out, above 64 nodes, for nobody asked for them

	alone map[string]addr.Address // zones of one node, whose row is that node's
}

// MatrixRow is one fault. Groups holds those that move or stay down; the
// others go on where they are.
type MatrixRow struct {
	Fail   []addr.Address `json:"fail"`
	Zone   string         `json:"zone,omitempty"`   // it is all nodes of this zone
	Device bool           `json:"device,omitempty"` // the quorum device is lost
	Quorum bool           `json:"quorum"`
	Groups []MatrixGroup  `json:"groups"`
}

// MatrixGroup is what becomes of a group in a fault.
type MatrixGroup struct {
	Group  addr.Address  `json:"group"`
	From   *addr.Address `json:"from"`
	To     *addr.Address `json:"to"`
	State  string        `json:"state"`            // online | offline
	Reason string        `json:"reason,omitempty"` // why it is down; or Frozen
}

// Diagnostic is an error or a warning, as `terraform validate -json` has it.
type Diagnostic struct {
	Severity string           `json:"severity"` // error | warning
	Summary  string           `json:"summary"`
	Detail   string           `json:"detail"`
	Address  string           `json:"address,omitempty"`
	Range    *DiagnosticRange `json:"range,omitempty"`
	Snippet  *Snippet         `json:"snippet,omitempty"` // whoever has the files adds it
}

// Snippet is the source that a diagnostic is about, in whole lines.
type Snippet struct {
	Context              *string `json:"context"` // the block around it; null: none
	Code                 string  `json:"code"`
	StartLine            int     `json:"start_line"`
	HighlightStartOffset int     `json:"highlight_start_offset"` // in bytes of Code
	HighlightEndOffset   int     `json:"highlight_end_offset"`
}

// DiagnosticRange is where in the definition.
type DiagnosticRange struct {
	Filename string        `json:"filename"`
	Start    DiagnosticPos `json:"start"`
	End      DiagnosticPos `json:"end"`
}

// DiagnosticPos is a place in a file.
type DiagnosticPos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}
