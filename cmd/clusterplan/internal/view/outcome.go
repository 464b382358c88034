package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// Outcome tells what became of an apply.
func (s Style) Outcome(w io.Writer, res *apply.Result, mode string) {
	d := res.Done
	if mode == planner.ModeRefreshOnly && !res.Interrupted {
		fmt.Fprintf(w, "\n%s The state says what was found.\n", s.Bold(s.Green("Refresh complete.")))
		return
	}
	verb := "Apply"
	if mode == planner.ModeDestroy {
		verb = "Destroy"
	}
	head := s.Green(verb + " complete.")
	if len(res.Failed) > 0 || res.Interrupted || len(res.Cancelled) > 0 {
		head = s.Red(verb + " incomplete.")
	}
	fmt.Fprintf(w, "\n%s", s.Bold(head))
	if d.Import > 0 {
		fmt.Fprintf(w, " %d imported,", d.Import)
	}
	fmt.Fprintf(w, " %d added, %d changed, %d destroyed", d.Create+d.Replace, d.Update, d.Delete+d.Replace)
	if d.Move > 0 {
		fmt.Fprintf(w, ", %d renamed", d.Move)
	}
	if d.Forget > 0 {
		fmt.Fprintf(w, ", %d forgotten", d.Forget)
	}
	if len(res.Failed) > 0 {
		fmt.Fprintf(w, "; %d failed, %d skipped", len(res.Failed), len(res.Skipped))
	}
	fmt.Fprintln(w, ".")
	for _, one := range res.Warnings {
		fmt.Fprintf(w, "\n%s %s: %s\n", s.Yellow("Warning:"), one.Addr, one.Text)
	}
	if mode != planner.ModeDestroy && len(res.State.Outputs) > 0 {
		fmt.Fprintf(w, "\n%s\n", s.Bold("Outputs"))
		_ = s.Outputs(w, res.State.Outputs)
	}
}

// Unsettled says which groups are still on their way when an apply is done.
func (s Style) Unsettled(w io.Writer, groups []client.StatusGroup) {
	for i, g := range groups {
		if i == 0 {
			fmt.Fprintf(w, "\n%s\n", s.Yellow("Not online yet:"))
		}
		why := g.State
		if g.Reason != "" {
			why += ": " + g.Reason
		}
		if g.Owner != "" {
			why += ", on " + g.Owner
		}
		fmt.Fprintf(w, "  %s (%s)\n", Tame(g.Name), Tame(why))
	}
}

// OutputValues are outputs as the last line of `apply --json` has them.
func OutputValues(outputs map[string]statefile.Output) any { return outputsJSON(outputs) }

// Next says how to go on: look, break, remove. victim may be nil.
func (s Style) Next(w io.Writer, program, dir string, victim *Victim) error {
	at := ""
	if dir != "" {
		at = " " + shell.Quote(dir)
	}
	rows := [][]string{
		{"  look:", fmt.Sprintf("%s status%s", program, at)},
		{"", fmt.Sprintf("%s events%s --follow", program, at)},
	}
	if victim != nil {
		rows = append(rows, []string{"  break:", fmt.Sprintf("kill -9 %d %d", victim.PID, victim.MonitorPID) +
			s.Dim(fmt.Sprintf("   # agent and monitor of %s, which owns %s; apply mends it", victim.Node, victim.Group))})
	}
	rows = append(rows, []string{"  remove:", fmt.Sprintf("%s destroy%s", program, at)})
	fmt.Fprintln(w)
	return table(w, rows)
}

// Victim is a node to try the cluster with: it owns a group, and killing its
// processes shows a failover.
type Victim struct {
	Group, Node     string
	PID, MonitorPID int
}

// Diff shows two texts' lines that differ, with two lines around them, as diff -u.
func Diff(w io.Writer, name string, before, after []byte) error {
	const around = 2
	steps := script(lines(before), lines(after), func(a, b string) bool { return a == b })
	var out strings.Builder
	fmt.Fprintf(&out, "--- old/%s\n+++ new/%s\n", name, name)
	atOld, atNew, told := 1, 1, 0 // lines of the two texts, and steps, that were passed
	pass := func(upTo int) (was, is int) {
		for ; told < upTo; told++ {
			if steps[told].mark != '+' {
				was++
			}
			if steps[told].mark != '-' {
				is++
			}
		}
		atOld, atNew = atOld+was, atNew+is
		return was, is
	}
	for i := 0; i < len(steps); i++ {
		if steps[i].mark == ' ' {
			continue
		}
		last := i
		for j := i; j < len(steps) && j <= last+2*around+1; j++ {
			if steps[j].mark != ' ' {
				last = j
			}
		}
		from, to := max(told, i-around), min(len(steps), last+around+1)
		pass(from)
		fromOld, fromNew := atOld, atNew
		was, is := pass(to)
		fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n", fromOld, was, fromNew, is)
		for _, st := range steps[from:to] {
			text := st.is
			if st.mark == '-' {
				text = st.was
			}
			fmt.Fprintf(&out, "%c%s\n", st.mark, text)
		}
		i = to - 1
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func lines(b []byte) []string {
	return strings.Split(string(bytes.TrimSuffix(b, []byte("\n"))), "\n")
}
