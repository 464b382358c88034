package planner

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Input is all that a plan is made from.
type Input struct {
	// Definition is evaluated with State's values; nil only with ModeDestroy
	// and ModeRefreshOnly, which take everything from the state.
	Definition *lang.Definition
	Version    DefinitionVersion
	State      statefile.State // with its journal folded in
	Pending    []statefile.Pending
	Renames    []statefile.Move // that Rename has given State
	Imports    []Import         // what import blocks found that State doesn't have
	World      World
	Providers  *providers.Registry // only Schema and Plan are called
	Mode       string              // "" is ModeNormal
	Replace    []addr.Address      // to be made again
	// Targets and Excludes, of which one is empty, make a plan of a part: these
	// and what they need alone, or all but these and what can't be without them.
	Targets, Excludes []addr.Address
	// AllowQuorumLoss plans steps that leave the cluster without quorum.
	AllowQuorumLoss bool
	// AllowBrokenGuarantee makes warnings of guarantees that would not hold.
	AllowBrokenGuarantee bool
	// Pairs has the failure matrix hold pairs of nodes also where there are more
	// than 64.
	Pairs bool
	// Only: nobody applies the plan, so that its work leaves out what an apply would
	// only note.
	Only bool
	// Foreseen, unless nil, is called once what the changes and faults do is worked out,
	// before the changes are put in order: what that took is of no more use.
	Foreseen func()
}

// World is what planner/refresh saw. The zero value is a world that was not
// looked at (--refresh=false): the state is taken for it.
type World struct {
	Objects map[addr.Address]Seen // by address of the state (or of the pending intent)
	Live    *providers.Live       // nil: no agent answers, or there is no cluster yet
	LiveErr string                // why, where there should be one
}

// Seen is what was read of one object.
type Seen struct {
	Object    *providers.Object // nil with Err "": it is gone for sure
	Resources []providers.Resource
	// Same: a group that is there just as the definition wants it, with all of
	// its resources; Object and Resources are not filled in.
	Same bool
	Err  string // it can't be seen: the state's values are kept
}

// problem makes a diagnostic without a place in the definition.
func problem(severity hcl.DiagnosticSeverity, summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: severity, Summary: summary, Detail: detail}
}
