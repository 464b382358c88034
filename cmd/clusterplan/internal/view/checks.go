package view

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/planner"
)

// checks names the check blocks of which nobody can tell yet. Those that fail
// are warnings, with the lines that they are about; of those that pass there
// is nothing to say.
func (s Style) checks(b *bytes.Buffer, p *planner.Plan) {
	const most = 8
	var names []string
	for _, c := range p.Checks {
		if c.Kind == planner.CheckBlock && c.Status == lang.Unknown {
			names = append(names, c.Address)
		}
	}
	if len(names) == 0 {
		return
	}
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("and %d more", more))
	}
	when := "Known after the apply:"
	if !p.Summary.Any() {
		when = "Can't be told now:"
	}
	fmt.Fprintf(b, "%s %s.\n\n", s.Bold(when), strings.Join(names, ", "))
}
