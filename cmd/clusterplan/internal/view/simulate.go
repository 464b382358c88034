package view

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
)

// Simulation writes what would happen.
func (s Style) Simulation(w io.Writer, sim *planner.Simulation) error {
	b := new(bytes.Buffer)
	from := "from the definition alone, with groups where they start first"
	if sim.Live {
		from = fmt.Sprintf("from where the cluster is now, revision %d", sim.Revision)
	}
	verb := "fails"
	if len(sim.Fail) > 1 {
		verb = "fail at once"
	}
	fmt.Fprintf(b, "%s  %s\n", s.Bold(fmt.Sprintf("If %s %s", and(sim.Fail), verb)), s.Dim("# "+from))
	if len(sim.Down) > 0 {
		fmt.Fprintf(b, "  %s already down: %s\n", s.Yellow("!"), and(texts(sim.Down)))
	}
	fmt.Fprintf(b, "  lost: %s\n\n", lost(sim))

	q := sim.Quorum
	state := s.Green("quorum")
	if !q.Have {
		state = s.Red("no quorum")
	}
	fmt.Fprintf(b, "%s (%s): %s, %d of %d votes up, %d needed", s.Bold("Quorum"), q.Model, state, q.Up, q.Votes, q.Needed)
	if q.Model == spec.SingleQuorum && sim.Device {
		b.WriteString(", without the device")
	}
	b.WriteString(".\n\n")

	s.section(b, "Groups")
	var rows [][]string
	for i := range sim.Groups {
		rows = append(rows, s.simulated(&sim.Groups[i]))
	}
	if len(rows) == 0 {
		b.WriteString("  none\n")
	}
	_ = table(b, rows)
	if len(sim.Guarantees) > 0 {
		b.WriteString("\n")
		s.section(b, "Guarantees")
		width := 0
		for i := range sim.Guarantees {
			width = max(width, len(sim.Guarantees[i].Name))
		}
		for i := range sim.Guarantees {
			g := &sim.Guarantees[i]
			text := s.Green("holds")
			switch {
			case !g.Covered && g.Holds:
				text = "does not cover this; its groups are online"
			case !g.Covered:
				text = "does not cover this"
			case !g.Holds:
				text = s.Red("broken")
			}
			fmt.Fprintf(b, "  %-*s  %s\n", width, g.Name, text)
			for _, why := range g.Broken {
				fmt.Fprintf(b, "    %s %s\n", s.Red("!"), why)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// simulated is a group's line.
func (s Style) simulated(g *planner.SimulatedGroup) []string {
	row := []string{"  " + g.Group.String(), place(g.From) + " -> " + place(g.To)}
	reason := strings.ReplaceAll(g.Reason, "_", " ")
	switch {
	case g.From == nil && g.To == nil:
		return []string{row[0], "nowhere", s.Dim("is down already (" + reason + ")")}
	case g.State != spec.StateOnline:
		return append(row, s.Red("stays down ("+reason+")"))
	case g.Reason == planner.Frozen:
		return []string{row[0], place(g.To), s.Yellow("goes on frozen: nobody takes it over")}
	case g.From != nil && g.To != nil && *g.From == *g.To:
		return []string{row[0], place(g.To), s.Dim("goes on")}
	}
	text := "back within " + millis(g.MaxMS)
	if g.From == nil {
		text = "starts"
	}
	if g.Terms != nil {
		text += "  " + s.Dim("("+g.Terms.Sum()+")")
	} else if g.From != nil {
		text += "  " + s.Dim("("+reason+")")
	}
	return append(row, text)
}

func lost(sim *planner.Simulation) string {
	names := texts(sim.Lost)
	if sim.Device {
		names = append(names, "the quorum device")
	}
	return and(names)
}

func texts(list []addr.Address) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

// and lists words as people do; of many the first ones.
func and(words []string) string {
	const most = 8
	if len(words) > most {
		words = append(append([]string(nil), words[:most-1]...), fmt.Sprintf("%d more", len(words)-most+1))
	}
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
