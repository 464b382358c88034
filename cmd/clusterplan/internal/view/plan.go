package view

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
)

// Plan writes a plan as people read it: what is not as it should be, what
// changes, in which order, and what that means for the cluster.
func (s Style) Plan(w io.Writer, p *planner.Plan) error {
	b := new(bytes.Buffer)
	var err error
	write := func() {
		// Reasons and names come from others, too: nothing of theirs moves the cursor.
		switch {
		case err != nil:
		case harmless(b.Bytes()):
			_, err = w.Write(b.Bytes())
		default:
			_, err = io.WriteString(w, s.recorded(b.String()))
		}
		b.Reset()
	}
	if failed := p.Errored && !p.Summary.Any(); !failed {
		s.part(b, "", p.Targets, "what that needs")
		s.part(b, "all but ", p.Excludes, "what can't be without that")
	}
	s.seen(b, p)
	s.changes(b, p, write)
	s.outputChanges(b, p)
	if p.Summary.Any() {
		s.steps(b, p)
		s.availability(b, p)
		s.failover(b, p)
		s.matrix(b, p)
	}
	s.guarantees(b, p)
	s.checks(b, p)
	b.WriteString(s.Summary(p))
	write()
	return err
}

// Summary is a plan's last line.
func (s Style) Summary(p *planner.Plan) string {
	c := p.Summary
	unknown := slices.ContainsFunc(p.Diagnostics, func(d planner.Diagnostic) bool {
		return d.Severity == "error" && d.Summary != planner.GuaranteeBroken
	})
	if unknown && !c.Any() { // what there would be to do, nobody knows
		return s.Red("No plan:") + " there are errors.\n"
	}
	if p.Mode == planner.ModeRefreshOnly {
		return s.rereads(p)
	}
	if !c.Any() {
		if len(p.OutputChanges) > 0 {
			return s.Bold("Plan:") + " no changes but those of outputs.\n"
		}
		text := s.Green("No changes.") + " The cluster is as the definition says.\n"
		switch {
		case p.Mode == planner.ModeDestroy:
			text = s.Green("No changes.") + " There is nothing to destroy.\n"
		case len(p.Targets)+len(p.Excludes) > 0:
			text = s.Yellow("No changes") + " in what was asked for.\n"
		case !p.Complete:
			text = s.Yellow("No changes") + " as far as could be seen.\n"
		}
		return text
	}
	text := s.Bold("Plan:")
	if c.Import > 0 {
		text += fmt.Sprintf(" %d to import,", c.Import)
	}
	text += fmt.Sprintf(" %d to add, %d to change, %d to destroy", c.Create+c.Replace, c.Update, c.Delete+c.Replace)
	if c.Move > 0 {
		text += fmt.Sprintf(", %d to rename", c.Move)
	}
	if c.Forget > 0 {
		text += fmt.Sprintf(", %d to forget", c.Forget)
	}
	return text + ".\n"
}

// rereads is the last line of a refresh-only plan.
func (s Style) rereads(p *planner.Plan) string {
	read := 0
	for i := range p.Changes {
		if p.Changes[i].Action() == "read" {
			read++
		}
	}
	switch {
	case read+p.Summary.Forget > 0:
		return fmt.Sprintf("%s the state takes over %d as found, and forgets %d. Nothing else is changed.\n", s.Bold("Plan:"), read, p.Summary.Forget)
	case len(p.Drift) > 0:
		return s.Green("No changes") + " of the state. What is not as it should be, plan and apply without --refresh-only mend.\n"
	case !p.Complete:
		return s.Yellow("No changes") + " of the state as far as could be seen.\n"
	}
	return s.Green("No changes") + " of the state: it says what is there.\n"
}

func (s Style) section(b *bytes.Buffer, title string) {
	fmt.Fprintf(b, "%s\n", s.Bold(title))
}

// seen tells how far the world could be seen, and what in it is not of the plan's making.
func (s Style) seen(b *bytes.Buffer, p *planner.Plan) {
	if p.AsOf != nil {
		fmt.Fprintf(b, "%s %s.\n\n", s.Yellow("Incomplete:"), p.AsOf.Text)
	}
	if len(p.Unreachable) > 0 {
		s.section(b, "Could not be seen; prior values are kept")
		for i := 0; i < len(p.Unreachable); {
			// One cause is told once, whatever it hides.
			reason, names := cause(&p.Unreachable[i]), []string{}
			for ; i < len(p.Unreachable) && cause(&p.Unreachable[i]) == reason; i++ {
				names = append(names, p.Unreachable[i].Address.String())
			}
			fmt.Fprintf(b, "  %s %s: %s\n", s.Yellow("!"), and(names), reason)
		}
		b.WriteString("\n")
	}
	if len(p.Drift) > 0 {
		s.section(b, "Not as it should be")
		for _, d := range p.Drift {
			what := strings.Join(d.What, ", ")
			if d.Gone {
				what = "gone"
			}
			fmt.Fprintf(b, "  %s %s: %s\n", s.Yellow("!"), d.Address, what)
		}
		b.WriteString("\n")
	}
	if len(p.Operator) > 0 {
		s.section(b, "Ordered by an operator, and kept")
		for _, o := range p.Operator {
			text := o.Order
			if o.To != "" {
				text += " to " + o.To
			}
			text += " by " + o.Author
			if o.Reason != "" {
				text += ": " + o.Reason
			}
			fmt.Fprintf(b, "  %s: %s\n", o.Address, text)
		}
		b.WriteString("\n")
	}
	if len(p.Unmanaged) > 0 {
		s.section(b, "In the cluster, but not in this state; left alone")
		for _, u := range p.Unmanaged {
			fmt.Fprintf(b, "  %s %s (managed by %s)\n", u.Type, u.Name, dash(u.ManagedBy))
		}
		fmt.Fprintf(b, "  %s\n", s.Dim("An import block takes one of them into the state, by its name."))
		b.WriteString("\n")
	}
}

// cause is why an object could not be seen, without its own name.
func cause(u *planner.Unreachable) string {
	return strings.TrimPrefix(strings.TrimPrefix(u.Reason, "read "+u.Address.String()+": "), "unreachable: ")
}

// part says of what part of the definition the plan is; list may be empty.
func (s Style) part(b *bytes.Buffer, what string, list []addr.Address, more string) {
	if len(list) == 0 {
		return
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].String()
	}
	fmt.Fprintf(b, "%s %s%s, and %s.\n\n", s.Yellow("Only a part:"), what, strings.Join(names, ", "), more)
}

func (s Style) symbol(c *planner.Change) string {
	switch {
	case len(c.Actions) == 2 && c.Actions[0] == "delete":
		return s.Red("-") + "/" + s.Green("+")
	case len(c.Actions) == 2:
		return s.Green("+") + "/" + s.Red("-")
	}
	switch c.Action() {
	case "create":
		return s.Green("+")
	case "update":
		return s.Yellow("~")
	case "delete":
		return s.Red("-")
	case "forget":
		return "."
	case "read":
		return "<="
	}
	return " "
}

// piece is how much of a plan's text is put together before it is written: all of
// it, of thousands of objects, is megabytes.
const piece = 64 << 10

// changes shows every object's change, and has write, if any, take what is there of
// the text from time to time.
func (s Style) changes(b *bytes.Buffer, p *planner.Plan, write func()) {
	d := newDefaults(p)
	for i := range p.Changes {
		if write != nil && b.Len() > piece {
			write()
		}
		c := &p.Changes[i]
		if c.Action() == "no-op" {
			s.hasMoved(b, c)
			s.imports(b, c)
			continue
		}
		indent := "  " // symbols line up; the widest has three columns
		switch {
		case len(c.Actions) == 2:
			indent = ""
		case c.Action() == "read":
			indent = " "
		}
		head := indent + s.symbol(c) + " " + s.Bold(c.Address.String())
		if c.Type != c.Address.Type || c.Address.IsResource() {
			head += " (" + c.Type + ")"
		}
		b.WriteString(s.because(head, slices.DeleteFunc(slices.Clone(c.Why), func(why string) bool { return below(c, why) })))
		if c.PreviousAddress != nil {
			fmt.Fprintf(b, "      %s\n", s.Dim(fmt.Sprintf("(moved from %s)", *c.PreviousAddress)))
		}
		if c.Importing != nil {
			fmt.Fprintf(b, "      %s\n", s.Dim(fmt.Sprintf("(imported from %q)", *c.Importing)))
		}
		if len(c.Phases) > 0 {
			fmt.Fprintf(b, "      %s\n", s.Dim("steps: "+strings.Join(c.Phases, ", ")))
		}
		if c.Action() != "forget" {
			s.attributes(b, c, d)
		}
		b.WriteString("\n")
	}
	s.suggestedMoves(b, p)
}

// hasMoved shows an object of which nothing changes but its address. A
// resource that only goes with its group is not told of.
func (s Style) hasMoved(b *bytes.Buffer, c *planner.Change) {
	if c.PreviousAddress == nil {
		return
	}
	if was := c.PreviousAddress; c.Address.IsResource() && was.Resource == c.Address.Resource && was.ResourceKey == c.Address.ResourceKey {
		return
	}
	line := "    " + s.Bold(c.PreviousAddress.String()) + " has moved to " + s.Bold(c.Address.String())
	b.WriteString(s.because(line, c.Why) + "\n")
}

// below tells whether a reason is only that an attribute has drifted, which the
// attribute's own line says.
func below(c *planner.Change, why string) bool {
	path, drifted := strings.CutPrefix(why, "drifted: ")
	return drifted && c.Action() == "update" && slices.ContainsFunc(c.Attributes, func(a planner.AttributeChange) bool {
		return a.Path == path && a.Cause == planner.CauseDrift
	})
}

// because ends a line with reasons; where that is too long for one, they stand
// below it.
func (s Style) because(line string, why []string) string {
	const wide = 100
	if len(why) == 0 {
		return line + "\n"
	}
	text := "# " + strings.Join(why, ", ")
	if visible(line)+2+visible(text) <= wide {
		return line + "  " + s.Dim(text) + "\n"
	}
	for _, w := range why {
		line += "\n      " + s.Dim("# "+w)
	}
	return line + "\n"
}

// imports shows an object that comes into the state as it is.
func (s Style) imports(b *bytes.Buffer, c *planner.Change) {
	if c.Importing == nil {
		return
	}
	line := "    " + s.Bold(c.Address.String()) + " will be imported " + s.Dim(fmt.Sprintf("(from %q)", *c.Importing))
	if len(c.Why) > 0 {
		line += "  " + s.Dim("# "+strings.Join(c.Why, ", "))
	}
	fmt.Fprintln(b, line)
	if len(c.Phases) > 0 {
		fmt.Fprintf(b, "      %s\n", s.Dim("steps: "+strings.Join(c.Phases, ", ")))
	}
	fmt.Fprintf(b, "      %s\n\n", s.Dim("it is as the definition says"))
}

// suggestedMoves shows the blocks that would rename what is deleted and created.
func (s Style) suggestedMoves(b *bytes.Buffer, p *planner.Plan) {
	if len(p.SuggestedMoves) == 0 {
		return
	}
	s.section(b, "Deleted and created, though it is the same but for its address")
	b.WriteString("  To rename it instead, put this into the definition:\n\n")
	for _, m := range p.SuggestedMoves {
		fmt.Fprintf(b, "  moved {\n    from = %s\n    to   = %s\n  }\n", lang.Written(m.From), lang.Written(m.To))
	}
	b.WriteString("\n")
}

func (s Style) outputChanges(b *bytes.Buffer, p *planner.Plan) {
	if len(p.OutputChanges) == 0 {
		return
	}
	s.section(b, "Changes to outputs")
	width := widest(slices.Collect(maps.Keys(p.OutputChanges)))
	for _, name := range slices.Sorted(maps.Keys(p.OutputChanges)) {
		o := p.OutputChanges[name]
		const indent = 2
		mark, text := s.Yellow("~"), ""
		if !o.Sensitive {
			text = s.differ(o.Before, o.After, indent, name, nil, ctyText)
		}
		switch {
		case len(o.Actions) > 0 && o.Actions[0] == "create":
			mark = s.Green("+")
			text = s.whole(o.After, mark, indent, ctyText(o.After))
		case len(o.Actions) > 0 && o.Actions[0] == "delete":
			mark = s.Red("-")
			text = s.whole(o.Before, mark, indent, ctyText(o.Before)) + " -> null"
		}
		if o.Sensitive {
			text = sensitiveText
		}
		fmt.Fprintf(b, "  %s %s = %s\n", mark, pad(name, width), text)
	}
	b.WriteString("\n")
}

// steps shows the order in which nodes are touched. Neighbouring phases of one
// node that leave the votes as they are stand on one line.
func (s Style) steps(b *bytes.Buffer, p *planner.Plan) {
	if len(p.Steps) == 0 {
		return
	}
	s.section(b, "Order of the nodes")
	var rows [][]string
	line := 0
	for i := 0; i < len(p.Steps); {
		first := p.Steps[i]
		phases := []string{first.Phase}
		j := i + 1
		for ; j < len(p.Steps) && p.Steps[j].Address == first.Address && p.Steps[j].Up == first.Up && p.Steps[j].Needed == first.Needed &&
			!p.Steps[j].Refused && !first.Refused && p.Steps[j].Why == first.Why; j++ {
			phases = append(phases, p.Steps[j].Phase)
		}
		i = j
		votes := fmt.Sprintf("%d up, %d needed", first.Up, first.Needed)
		if first.Needed == 0 {
			votes = ""
		}
		why := first.Why
		if why == "not in state" { // it stands above
			why = ""
		}
		if first.Refused {
			why = s.Red(strings.TrimSpace("refused: " + why))
		}
		line++
		rows = append(rows, []string{fmt.Sprintf("%4d.", line), first.Address.String(), strings.Join(phases, ", "), votes, why})
	}
	_ = table(b, rows)
	if q := p.Quorum; q != nil {
		fmt.Fprintf(b, "  Quorum (%s): %s, %d needed", q.Model, count(q.Votes, "vote"), q.Needed)
		if work := p.Work(); work != nil && !work.First {
			fmt.Fprintf(b, "; on the way never fewer than %d up", q.Lowest)
		}
		b.WriteString(".\n")
	}
	b.WriteString("\n")
}

func (s Style) availability(b *bytes.Buffer, p *planner.Plan) {
	if len(p.Availability) == 0 {
		return
	}
	s.section(b, "Interruptions")
	var rows [][]string
	const most = 40
	for i, a := range p.Availability {
		if i == most {
			rows = append(rows, []string{fmt.Sprintf("  and %d more, in --json", len(p.Availability)-most)})
			break
		}
		length := "until the node is back"
		if a.MaxMS >= 0 {
			length = "at most " + millis(a.MaxMS)
		}
		times := "once"
		if a.Interruptions != 1 {
			times = strconv.Itoa(a.Interruptions) + " times"
		}
		rows = append(rows, []string{"  " + a.Group.String(), place(a.From) + " -> " + place(a.To), times, length, a.Why})
	}
	_ = table(b, rows)
	b.WriteString("\n")
}

func place(a *addr.Address) string {
	if a == nil {
		return "nowhere"
	}
	return a.String()
}

func millis(ms int64) string {
	if ms >= 10_000 {
		return fmt.Sprintf("%.0f s", float64(ms)/1000)
	}
	if ms >= 1000 {
		return fmt.Sprintf("%.1f s", float64(ms)/1000)
	}
	return fmt.Sprintf("%d ms", ms)
}

// notHeld names what may outlive its node's lease.
func notHeld(left []spec.NotHeld) string {
	names := make([]string, len(left))
	for i, n := range left {
		names[i] = n.Resource
	}
	return strings.Join(names, ", ") + " may outlive its lease"
}

func (s Style) failover(b *bytes.Buffer, p *planner.Plan) {
	var rows [][]string
	const most = 12
	same, more := 0, 0
	for _, f := range p.FailoverTimes {
		if f.Same {
			same++
			continue
		}
		if len(rows) == most {
			more++
			continue
		}
		terms := f.Terms.Sum()
		if !f.Exclusive {
			terms += "; not exclusive: " + notHeld(f.NotHeld)
		}
		terms = "(" + terms + ")"
		if f.BeforeMS != nil && *f.BeforeMS != f.WorstMS {
			terms += "  # before: " + millis(*f.BeforeMS)
		}
		rows = append(rows, []string{"  " + f.Group.String(), millis(f.WorstMS), s.Dim(terms)})
	}
	if len(rows) == 0 { // no bound changes
		return
	}
	s.section(b, "Longest failover when a group's owner dies")
	if more > 0 {
		rows = append(rows, []string{fmt.Sprintf("  and %d more, in --json", more)})
	}
	_ = table(b, rows)
	if same > 0 {
		b.WriteString("  " + s.Dim("# ("+count(same, "unchanged group")+" hidden)") + "\n")
	}
	b.WriteString("  " + s.Dim("start is of programs that are up at once; what one takes longer comes on top") + "\n")
	if q := p.Quorum; q != nil && q.Model == spec.MajorityNodeSet && q.Votes > 1 {
		b.WriteString("  " + s.Dim("up to "+millis(planner.SlowElection.Milliseconds())+" more in about 1 of 500, where a lost leader's election is repeated") + "\n")
	}
	b.WriteString("\n")
}
