package view

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Status writes a cluster's state as tables.
func (s Style) Status(w io.Writer, st *client.Status) error {
	st = Tame(st)
	var b strings.Builder
	quorum := s.Green("quorum")
	if !st.Quorum.Have {
		quorum = s.Red("no quorum")
		if at := st.Quorum.LostSince; at != nil {
			quorum += " since " + at.UTC().Format(time.DateTime) + " (" + since(*at, st.Time) + ")"
		}
	}
	leader := st.Leader
	if leader == "" {
		leader = "unknown"
	}
	model := ""
	if st.Quorum.Model != "" { // it is the cluster's to say, and no agent may answer
		model = fmt.Sprintf(" (%s)", st.Quorum.Model)
	}
	fmt.Fprintf(&b, "%s  %s: %d of %d votes up, %d needed%s  leader %s  revision %d\n\n",
		s.Bold("Cluster "+st.Cluster), quorum, st.Quorum.Up, st.Quorum.Votes, st.Quorum.Needed, model, leader, st.Revision)
	if st.Quorum.DeviceProblem != "" {
		fmt.Fprintf(&b, "  %s %s\n\n", s.Red("!"), st.Quorum.DeviceProblem)
	}
	if c := st.Change; c != nil {
		fmt.Fprintf(&b, "  Being changed: %s by %s for %s\n\n", c.What, c.Author, since(c.Since, st.Time))
	}
	rows := [][]string{s.head("NODE", "STATE", "ADDRESS", "VOTES", "ROLE", "PID", "MONITOR", "VERSION", "")}
	for _, n := range st.Nodes {
		rows = append(rows, []string{n.Name, s.state(n.State), dash(n.Address), strconv.Itoa(n.Votes), dash(n.Role), pid(n.PID), pid(n.MonitorPID), dash(n.Version), notes(n)})
	}
	if err := table(&b, rows); err != nil {
		return err
	}
	b.WriteString("\n")
	rows = [][]string{s.head("GROUP", "STATE", "OWNER", "SINCE", "")}
	for _, g := range st.Groups {
		rows = append(rows, []string{g.Name, s.state(g.State), dash(g.Owner), since(g.Since, st.Time), g.Reason})
		for i, r := range g.Resources {
			branch := "├─ "
			if i == len(g.Resources)-1 {
				branch = "└─ "
			}
			rows = append(rows, []string{s.Dim(branch) + r.Name, s.state(r.State), "", "", strings.TrimSpace(s.Dim(r.Type) + " " + r.Reason)})
		}
	}
	if len(st.Groups) == 0 {
		rows = [][]string{{"No groups."}}
	}
	if err := table(&b, rows); err != nil {
		return err
	}
	if len(st.Fences) > 0 {
		b.WriteString("\n")
		rows = [][]string{s.head("FENCE", "AGENT", "LEVEL", "NODES", "LAST USE")}
		for _, f := range st.Fences {
			last := "-"
			if u := f.Last; u != nil {
				last = u.Node + " off"
				if !u.OK {
					last = s.Red(u.Node+" failed") + ": " + u.Error
				}
				last += s.Dim(", " + since(u.Time, st.Time) + " ago")
			}
			rows = append(rows, []string{f.Name, f.Agent, strconv.Itoa(f.Level), strings.Join(f.Nodes, ","), last})
		}
		if err := table(&b, rows); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Style) head(names ...string) []string {
	for i := range names {
		names[i] = s.Dim(names[i])
	}
	return names
}

func (s Style) state(state string) string {
	switch state {
	case spec.NodeUp, spec.StateOnline:
		return s.Green(state)
	case spec.NodeDown, spec.StateFailed:
		return s.Red(state)
	case spec.StateOffline:
		return state
	}
	return s.Yellow(state)
}

func notes(n client.StatusNode) string {
	var all []string
	if n.Zone != "" {
		all = append(all, "zone "+n.Zone)
	}
	if n.Spare {
		all = append(all, "spare")
	}
	if n.Reason != "" {
		all = append(all, n.Reason)
	}
	if n.FreezerPID != 0 {
		all = append(all, "freezer "+strconv.Itoa(n.FreezerPID))
	}
	if n.NotReady != "" {
		all = append(all, "can run no group yet: "+n.NotReady)
	}
	if n.NoReset != "" {
		all = append(all, n.NoReset)
	}
	if n.Fenced != nil && n.State == spec.NodeDown {
		how := "off, by fence " + n.Fenced.By
		if n.Fenced.Person {
			how = "off, by the word of " + n.Fenced.By
		}
		all = append(all, how)
	}
	return strings.Join(all, ", ")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func pid(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// since is how long ago, in the two largest units.
func since(t, now time.Time) string {
	if t.IsZero() || now.Before(t) {
		return "-"
	}
	d := now.Sub(t).Truncate(time.Second)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

// Event writes one line of the event log. Kinds and objects stand in columns
// that hold most of them: what is to come can't be measured.
func (s Style) Event(w io.Writer, e client.Event) error {
	e = Tame(e)
	var b strings.Builder
	kind := fmt.Sprintf("%-15s", e.Kind)
	fmt.Fprintf(&b, "%s  %s  %-12s  %s", s.Dim(e.Time.Local().Format("2006-01-02 15:04:05.000")), s.Bold(kind), e.Object, e.Text)
	var tail []string
	if e.Node != "" && !names(e.Text, e.Node) {
		tail = append(tail, "on "+e.Node)
	}
	if e.Author != "" {
		tail = append(tail, "by "+e.Author)
	}
	if len(tail) > 0 {
		b.WriteString("  " + s.Dim("("+strings.Join(tail, ", ")+")"))
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// names tells whether an event's text says which node it is about.
func names(text, node string) bool {
	words := strings.Fields(text)
	for i, w := range words {
		if i > 0 && words[i-1] == "node" && strings.TrimRight(w, ",:;") == node {
			return true
		}
	}
	return false
}
