package view

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

type logJSON struct {
	FormatVersion string        `json:"format_version"`
	Applies       []appliedJSON `json:"applies"`
}

type appliedJSON struct {
	Serial     uint64           `json:"serial"`
	Time       time.Time        `json:"time"`
	Who        string           `json:"who"`
	Action     string           `json:"action"`
	Outcome    string           `json:"outcome"`
	Definition definitionJSON   `json:"definition"`
	Counts     countsJSON       `json:"counts"`
	Moved      []statefile.Move `json:"moved"`
	Broken     []string         `json:"broken_guarantees"`
	Rollback   bool             `json:"can_roll_back"` // its variables are kept
}

type definitionJSON struct {
	Git   *string `json:"git"`
	Dirty bool    `json:"dirty"`
}

type countsJSON struct {
	Add     int `json:"add"`
	Change  int `json:"change"`
	Destroy int `json:"destroy"`
}

func outcome(a *statefile.Applied) string {
	if a.Outcome == "" {
		return statefile.OutcomeCutOff
	}
	return a.Outcome
}

// LogJSON writes applies as one object.
func LogJSON(w io.Writer, list []statefile.Applied) error {
	doc := logJSON{FormatVersion: planner.FormatVersion, Applies: []appliedJSON{}}
	for i := range list {
		a := &list[i]
		one := appliedJSON{Serial: a.Serial, Time: a.Time, Who: a.Who, Action: a.Action, Outcome: outcome(a), Counts: countsJSON(a.Counts),
			Definition: definitionJSON{Dirty: a.Definition.Dirty}, Moved: []statefile.Move{}, Broken: []string{}, Rollback: a.Variables != "" && a.Definition.Git != ""}
		if a.Definition.Git != "" {
			one.Definition.Git = &a.Definition.Git
		}
		if a.Moved != nil {
			one.Moved = append(one.Moved, a.Moved.Moves...)
		}
		one.Broken = append(one.Broken, a.Definition.Broken...)
		doc.Applies = append(doc.Applies, one)
	}
	return JSON(w, doc)
}

// Log writes applies as a table, in their order.
func (s Style) Log(w io.Writer, list []statefile.Applied) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "Nothing was applied yet, as far as the state knows.")
		return err
	}
	rows := [][]string{{"SERIAL", "TIME", "REVISION", "ACTION", "OUTCOME", "CHANGES", "WHO"}}
	for i := range list {
		a := &list[i]
		rev := "-"
		if a.Definition.Git != "" {
			rev = a.Definition.Git[:min(12, len(a.Definition.Git))]
		}
		if a.Definition.Dirty {
			rev += "+changes"
		}
		var counts []string
		for _, c := range []struct {
			n    int
			what string
		}{{a.Counts.Add, "+"}, {a.Counts.Change, "~"}, {a.Counts.Destroy, "-"}} {
			if c.n > 0 {
				counts = append(counts, fmt.Sprintf("%s%d", c.what, c.n))
			}
		}
		if a.Moved != nil {
			counts = append(counts, fmt.Sprintf("moved %d", len(a.Moved.Moves)))
		}
		what := strings.ReplaceAll(outcome(a), "_", " ")
		if what != statefile.OutcomeDone {
			what = s.Yellow(what)
		}
		rows = append(rows, []string{fmt.Sprint(a.Serial), a.Time.UTC().Format("2006-01-02 15:04:05"), rev, a.Action, what, strings.Join(counts, " "), Tame(a.Who)})
	}
	return table(w, rows)
}

// Compare writes two versions of a definition side by side.
func (s Style) Compare(w io.Writer, c *planner.Comparison) error {
	b := new(bytes.Buffer)
	fmt.Fprintf(b, "%s %s (%.12s)\n%s %s (%.12s)\n\n", s.Red("-"), c.From.Revision, c.From.Git, s.Green("+"), c.To.Revision, c.To.Git)
	s.changes(b, &planner.Plan{Changes: c.Changes}, nil)
	s.compareFaults(b, c)
	s.compareTimes(b, c)
	s.compareGuarantees(b, c)
	n := c.Summary
	switch {
	case n == planner.CompareSummary{}:
		b.WriteString(s.Green("No difference") + " in the objects.\n")
	default:
		fmt.Fprintf(b, "%s %d added, %d changed, %d removed", s.Bold("Difference:"), n.Added, n.Changed, n.Removed)
		if n.Moved > 0 {
			fmt.Fprintf(b, ", %d moved", n.Moved)
		}
		b.WriteString(".\n")
	}
	_, err := io.WriteString(w, s.recorded(b.String()))
	return err
}

// compareFaults shows the faults that do something else to either version.
func (s Style) compareFaults(b *bytes.Buffer, c *planner.Comparison) {
	const most = 32
	rows := func(m *planner.Matrix) (names []string, by map[string]*planner.MatrixRow) {
		by = map[string]*planner.MatrixRow{}
		for i := range m.Rows {
			name := s.faultName(&m.Rows[i])
			names, by[name] = append(names, name), &m.Rows[i]
		}
		return names, by
	}
	names, before := rows(c.FailureMatrix.Before)
	more, after := rows(c.FailureMatrix.After)
	for _, name := range more {
		if before[name] == nil {
			names = append(names, name)
		}
	}
	cell := func(r *planner.MatrixRow) string {
		switch {
		case r == nil:
			return s.Dim("-")
		case !r.Quorum:
			return s.Red("no quorum") + ", " + s.effects(r.Groups)
		}
		return s.effects(r.Groups)
	}
	var shown [][]string
	same, left := 0, 0
	for _, name := range names {
		one, other := cell(before[name]), cell(after[name])
		switch {
		case one == other:
			same++
		case len(shown) >= most:
			left++
		default:
			shown = append(shown, []string{"  " + name, one, other})
		}
	}
	if len(names) == 0 {
		return
	}
	s.section(b, "When nodes fail")
	if len(shown) > 0 {
		_ = table(b, slices.Insert(shown, 0, []string{"  ", s.Bold(c.From.Revision), s.Bold(c.To.Revision)}))
	}
	if left > 0 {
		fmt.Fprintf(b, "  and %d more faults, in --json\n", left)
	}
	if same > 0 {
		fmt.Fprintf(b, "  %s\n", s.Dim("# ("+count(same, "unchanged fault")+" hidden)"))
	}
	for i, r := range c.FailureMatrix.Regressions {
		if i == most {
			fmt.Fprintf(b, "  %s and %d more, in --json\n", s.Red("worse:"), len(c.FailureMatrix.Regressions)-most)
			break
		}
		fmt.Fprintf(b, "  %s %s\n", s.Red("worse:"), r)
	}
	b.WriteString("\n")
}

// compareTimes shows the longest failovers that are not the same.
func (s Style) compareTimes(b *bytes.Buffer, c *planner.Comparison) {
	times := func(list []planner.FailoverTime) map[string]string {
		out := map[string]string{}
		for _, t := range list {
			out[t.Group.String()] = millis(t.WorstMS)
		}
		return out
	}
	s.compared(b, "Longest failover when a group's owner dies", c, times(c.From.FailoverTimes), times(c.To.FailoverTimes))
}

func (s Style) compareGuarantees(b *bytes.Buffer, c *planner.Comparison) {
	states := func(list []planner.Guarantee) map[string]string {
		out := map[string]string{}
		for _, g := range list {
			if out[g.Name] = s.Green("holds"); !g.Holds {
				out[g.Name] = s.Red("broken")
			}
		}
		return out
	}
	s.compared(b, "Guarantees", c, states(c.From.Guarantees), states(c.To.Guarantees))
}

func (s Style) compared(b *bytes.Buffer, title string, c *planner.Comparison, before, after map[string]string) {
	var names []string
	for name := range before {
		names = append(names, name)
	}
	for name := range after {
		if _, known := before[name]; !known {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	rows := [][]string{{"  ", s.Bold(c.From.Revision), s.Bold(c.To.Revision)}}
	for _, name := range names {
		if before[name] != after[name] {
			rows = append(rows, []string{"  " + name, dash(before[name]), dash(after[name])})
		}
	}
	if len(rows) == 1 {
		return
	}
	s.section(b, title)
	_ = table(b, rows)
	b.WriteString("\n")
}
