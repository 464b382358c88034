package scenario

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
)

// Results are what became of scenarios: `simulate --scenario --json`.
type Results struct {
	FormatVersion string               `json:"format_version"`
	Cluster       string               `json:"cluster"`
	Scenarios     []Result             `json:"scenarios"`
	Summary       Summary              `json:"summary"`
	Diagnostics   []planner.Diagnostic `json:"diagnostics"`
}

// Summary counts scenarios.
type Summary struct {
	Total  int `json:"total"`
	Passed int `json:"passed"`
	Failed int `json:"failed"`
}

// Result is one scenario's.
type Result struct {
	Name        string       `json:"name"`
	Description string       `json:"description"`
	File        string       `json:"file"`
	Line        int          `json:"line"`
	Seed        uint64       `json:"seed"`
	Passed      bool         `json:"passed"`
	VirtualMS   int64        `json:"virtual_ms"` // from its start to its end
	Groups      []GroupStart `json:"groups"`     // where they start
	Steps       []StepResult `json:"steps"`
	// Error is why it could not be carried out to its end: the definition's
	// cluster does not form, or the runtime broke a rule of its own.
	Error string `json:"error,omitempty"`
}

// GroupStart is where a group is at first.
type GroupStart struct {
	Group addr.Address  `json:"group"`
	Owner *addr.Address `json:"owner"` // null: nobody
	State string        `json:"state"`
}

// StepResult is one step's.
type StepResult struct {
	N        int           `json:"n"` // from 1
	Name     string        `json:"name"`
	Action   string        `json:"action"`
	Line     int           `json:"line"`
	AtMS     int64         `json:"at_ms"`   // when it began, in virtual time from the scenario's start
	TookMS   int64         `json:"took_ms"` // the wait, or until the cluster was at rest
	AtRest   bool          `json:"at_rest"` // it was waited for that, and it was
	Refused  string        `json:"refused,omitempty"`
	Quorum   bool          `json:"quorum"`
	Groups   []GroupResult `json:"groups"`
	Expected int           `json:"expected"` // how many things were checked
	Failures []Failure     `json:"failures"`
}

// GroupResult is a group over a step.
type GroupResult struct {
	Group  addr.Address  `json:"group"`
	From   *addr.Address `json:"from"` // null: nobody
	To     *addr.Address `json:"to"`
	State  string        `json:"state"`
	DownMS int64         `json:"down_ms"` // how long nobody ran all of it, within the step
}

// Failure is an expectation that was not met.
type Failure struct {
	Message string `json:"message"`
	File    string `json:"file"`
	Line    int    `json:"line"`
}

func failureAt(at hcl.Range, message string) Failure {
	return Failure{Message: message, File: at.Filename, Line: at.Start.Line}
}

// failed tells whether anything was not as expected.
func (r *Result) failed() bool {
	if r.Error != "" {
		return true
	}
	for i := range r.Steps {
		if len(r.Steps[i].Failures) > 0 {
			return true
		}
	}
	return false
}

// NewResults puts results together.
func NewResults(cluster string, list []Result) *Results {
	out := &Results{FormatVersion: planner.FormatVersion, Cluster: cluster, Scenarios: list, Diagnostics: []planner.Diagnostic{}}
	if list == nil {
		out.Scenarios = []Result{}
	}
	for i := range list {
		out.Summary.Total++
		if list[i].Passed {
			out.Summary.Passed++
		} else {
			out.Summary.Failed++
		}
	}
	return out
}
