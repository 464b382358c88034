package view

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/clusterplan/clusterplan/planner"
)

// matrix shows what faults do: nodes, zones and the quorum device, then as many
// pairs as there is room for. Where there is a cluster, only those are shown that
// do something else than before.
func (s Style) matrix(b *bytes.Buffer, p *planner.Plan) {
	m := p.FailureMatrix.After
	if m == nil || len(m.Rows) == 0 {
		return
	}
	s.section(b, "When nodes fail")
	before := map[string]*planner.MatrixRow{}
	if p.FailureMatrix.Before != nil {
		for i := range p.FailureMatrix.Before.Rows {
			r := &p.FailureMatrix.Before.Rows[i]
			before[s.faultName(r)] = r
		}
	}
	var changed []*planner.MatrixRow
	for i := range m.Rows {
		r := &m.Rows[i]
		if was := before[s.faultName(r)]; was == nil || was.Quorum != r.Quorum || s.effects(was.Groups) != s.effects(r.Groups) {
			changed = append(changed, r)
		}
	}
	const most, zones = 16, 8
	var rows [][]string
	for kind, limit := range []int{most, zones, 1, most} {
		for _, r := range changed {
			if faultKind(r) == kind && limit > 0 && (kind < 3 || len(rows) < most) {
				limit--
				rows = append(rows, s.fault(r, before[s.faultName(r)]))
			}
		}
	}
	if left := len(changed) - len(rows); left > 0 {
		rows = append(rows, []string{fmt.Sprintf("  and %d more faults, in --json", left)})
	}
	_ = table(b, rows)
	if same := len(m.Rows) - len(changed); same > 0 {
		fmt.Fprintf(b, "  %s\n", s.Dim("# ("+count(same, "unchanged fault")+" hidden)"))
	}
	if !m.Pairs {
		fmt.Fprintf(b, "  %s\n", s.Dim("# (pairs of nodes left out; --pairs works them out)"))
	}
	for i, r := range p.FailureMatrix.Regressions {
		if i == most {
			fmt.Fprintf(b, "  %s and %d more, in --json\n", s.Red("worse:"), len(p.FailureMatrix.Regressions)-most)
			break
		}
		fmt.Fprintf(b, "  %s %s\n", s.Red("worse:"), r)
	}
	b.WriteString("\n")
}

// faultKind orders the rows: 0 a node, 1 a zone, 2 the quorum device, 3 a pair.
func faultKind(r *planner.MatrixRow) int {
	switch {
	case r.Device:
		return 2
	case r.Zone != "":
		return 1
	case len(r.Fail) == 1:
		return 0
	}
	return 3
}

// faultName is what a row is about.
func (s Style) faultName(r *planner.MatrixRow) string {
	names := make([]string, len(r.Fail))
	for i := range r.Fail {
		names[i] = r.Fail[i].String()
	}
	switch {
	case r.Device:
		return "quorum device"
	case r.Zone != "":
		for i := range names {
			names[i] = strings.TrimPrefix(names[i], "node.")
		}
		if len(names) > 4 {
			names = append(names[:3], fmt.Sprintf("and %d more", len(r.Fail)-3))
		}
		return "zone " + r.Zone + " (" + strings.Join(names, ", ") + ")"
	}
	return strings.Join(names, " + ")
}

// fault is a row, with what it was before where there was one.
func (s Style) fault(r, before *planner.MatrixRow) []string {
	quorum := func(have bool) string {
		if have {
			return s.Green("quorum")
		}
		return s.Red("no quorum")
	}
	row := []string{"  " + s.faultName(r), quorum(r.Quorum), s.effects(r.Groups)}
	if before != nil {
		plain := Style{}
		was := plain.effects(before.Groups)
		switch {
		case before.Quorum && !r.Quorum:
			was = "quorum, " + was
		case !before.Quorum && r.Quorum:
			was = "no quorum, " + was
		}
		row[2] += "  " + s.Dim("# before: "+was)
	}
	return row
}

// effects is what becomes of groups: who moves where, who goes on frozen, and
// who stays down, those with one reason together.
func (s Style) effects(groups []planner.MatrixGroup) string {
	if len(groups) == 0 {
		return s.Dim("nothing moves")
	}
	const most = 6
	var parts []string
	for i := 0; i < len(groups); {
		if i >= most {
			parts = append(parts, fmt.Sprintf("and %d more", len(groups)-i))
			break
		}
		g := groups[i]
		name := strings.TrimPrefix(g.Group.String(), "group.")
		i++
		switch {
		case g.Reason == planner.Frozen && g.To != nil:
			parts = append(parts, s.Yellow(name+" frozen on "+strings.TrimPrefix(g.To.String(), "node.")))
		case g.To != nil:
			parts = append(parts, name+" -> "+strings.TrimPrefix(g.To.String(), "node."))
		default:
			text := name
			for ; i < len(groups) && i < most && groups[i].To == nil && groups[i].State == g.State && groups[i].Reason == g.Reason; i++ {
				text += ", " + strings.TrimPrefix(groups[i].Group.String(), "group.")
			}
			text += " " + g.State
			if g.Reason != "" && g.Reason != "no_quorum" { // that stands beside it
				text += " (" + strings.ReplaceAll(g.Reason, "_", " ") + ")"
			}
			parts = append(parts, s.Red(text))
		}
	}
	return strings.Join(parts, ", ")
}
