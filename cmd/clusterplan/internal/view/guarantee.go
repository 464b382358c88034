package view

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/clusterplan/clusterplan/planner"
)

// guarantees shows what becomes of each guarantee; where nothing changes, only
// those that do not hold.
func (s Style) guarantees(b *bytes.Buffer, p *planner.Plan) {
	shown := make([]*planner.Guarantee, 0, len(p.Guarantees))
	width := 0
	for i := range p.Guarantees {
		if g := &p.Guarantees[i]; !g.Holds || p.Summary.Any() {
			shown = append(shown, g)
			width = max(width, len(g.Name))
		}
	}
	if len(shown) == 0 {
		return
	}
	s.section(b, "Guarantees")
	for _, g := range shown {
		s.guarantee(b, g, width)
	}
	b.WriteString("\n")
}

func (s Style) guarantee(b *bytes.Buffer, g *planner.Guarantee, width int) {
	state := s.Green("holds")
	if !g.Holds {
		state = s.Red("broken")
	}
	fmt.Fprintf(b, "  %-*s  %s", width, g.Name, state)
	var times []string
	if g.WorstMS >= 0 && len(g.Groups) > 0 {
		times = append(times, "longest failover "+millis(g.WorstMS))
	}
	if g.MaxDowntimeMS > 0 {
		times = append(times, millis(g.MaxDowntimeMS)+" allowed")
	}
	if len(times) > 0 {
		b.WriteString("  " + s.Dim(strings.Join(times, ", ")))
	}
	b.WriteString("\n")
	for _, why := range g.Broken {
		fmt.Fprintf(b, "    %s %s\n", s.Red("!"), why)
	}
}
