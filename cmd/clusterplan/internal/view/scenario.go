package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner/scenario"
)

// mostStarts is how many groups are listed where they start.
const mostStarts = 20

// Scenarios writes what became of scenarios, step by step.
func (s Style) Scenarios(w io.Writer, r *scenario.Results) error {
	b := new(bytes.Buffer)
	shown := Tame(r.Scenarios) // their names and descriptions are anybody's
	for i := range shown {
		s.scenario(b, &shown[i])
		b.WriteString("\n")
	}
	sum := fmt.Sprintf("%d passed, %d failed.", r.Summary.Passed, r.Summary.Failed)
	if r.Summary.Failed > 0 {
		sum = s.Red(sum)
	} else {
		sum = s.Green(sum)
	}
	fmt.Fprintf(b, "%s %s\n", s.Bold("Scenarios:"), sum)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Style) scenario(b *bytes.Buffer, r *scenario.Result) {
	fmt.Fprintf(b, "%s  %s\n", s.Bold(fmt.Sprintf("Scenario %q", r.Name)), s.Dim(fmt.Sprintf("# %s:%d", r.File, r.Line)))
	if r.Description != "" {
		fmt.Fprintf(b, "  %s\n", s.Dim(r.Description))
	}
	var rows [][]string
	for i, g := range r.Groups {
		if i == mostStarts && len(r.Groups) > mostStarts+1 {
			rows = append(rows, []string{fmt.Sprintf("      and %d more", len(r.Groups)-i)})
			break
		}
		at := "on " + place(g.Owner)
		if g.Owner == nil {
			at = "nowhere (" + strings.ReplaceAll(g.State, "_", " ") + ")"
		}
		rows = append(rows, []string{"      " + g.Group.String(), at})
	}
	if len(rows) > 0 {
		b.WriteString("  at first\n")
		_ = table(b, rows)
	}
	for i := range r.Steps {
		s.scenarioStep(b, &r.Steps[i])
	}
	if r.Error != "" {
		fmt.Fprintf(b, "  %s %s\n", s.Red("!"), r.Error)
	}
	verdict := s.Green("passed")
	if !r.Passed {
		verdict = s.Red("failed")
	}
	fmt.Fprintf(b, "  %s  %s\n", verdict, s.Dim("# "+virtual(r.VirtualMS)+" of virtual time"))
}

func (s Style) scenarioStep(b *bytes.Buffer, t *scenario.StepResult) {
	what := s.Bold(t.Name)
	if t.Name != t.Action {
		what += ": " + t.Action
	}
	fmt.Fprintf(b, "  %s  %s\n", s.Dim(fmt.Sprintf("%9s", virtual(t.AtMS))), what)
	if t.Refused != "" {
		fmt.Fprintf(b, "      %s refused: %s\n", s.Yellow("!"), t.Refused)
	}
	if !t.Quorum {
		fmt.Fprintf(b, "      %s no quorum\n", s.Yellow("!"))
	}
	var rows [][]string
	for i := range t.Groups {
		g := &t.Groups[i]
		stays := g.From != nil && g.To != nil && *g.From == *g.To
		if stays && g.DownMS == 0 && g.State == spec.StateOnline || g.From == nil && g.To == nil {
			continue // as it was
		}
		row := []string{"      " + g.Group.String()}
		if stays {
			row = append(row, place(g.To))
		} else {
			row = append(row, place(g.From)+" -> "+place(g.To))
		}
		switch {
		case g.State != spec.StateOnline:
			row = append(row, s.Yellow(strings.ReplaceAll(g.State, "_", " ")))
		case g.From == nil:
			row = append(row, s.Dim("comes online"))
		default:
			row = append(row, "down for "+millis(g.DownMS))
		}
		rows = append(rows, row)
	}
	_ = table(b, rows)
	for i := range t.Failures {
		f := &t.Failures[i]
		fmt.Fprintf(b, "      %s %s  %s\n", s.Red("!"), f.Message, s.Dim(fmt.Sprintf("# %s:%d", f.File, f.Line)))
	}
	if t.Expected > 0 && len(t.Failures) == 0 {
		fmt.Fprintf(b, "      %s\n", s.Green("as expected"))
	}
}

// virtual is a virtual time.
func virtual(ms int64) string { return fmt.Sprintf("%d.%03d s", ms/1000, ms%1000) }
