package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// story is what happened, in true time: the last some thousand things.
type story struct {
	lines []line
	about string  // the group that the violation is about
	hosts []*host // and the hosts; both may be empty
}

// line is one thing that happened.
type line struct {
	at    int64
	kind  byte
	host  *host  // nil: of the whole cluster
	group string // "": of no group
	text  string
}

const (
	lineFault   = 'F' // a fault, an order, an end of the world
	lineState   = 'S' // what a host does: starts, stops, logs
	lineLease   = 'L' // a lease that a host got
	lineEpoch   = 'E' // what the database says of a group
	lineVerdict = 'V'
)

const storyLines = 6000

func (w *world) line(kind byte, h *host, group, format string, args ...any) {
	s := &w.story
	if len(s.lines) >= 2*storyLines {
		s.lines = append(s.lines[:0], s.lines[storyLines:]...)
	}
	s.lines = append(s.lines, line{w.now, kind, h, group, fmt.Sprintf(format, args...)})
}

// tell adds a fault, an order, or what else concerns all.
func (w *world) tell(format string, args ...any) { w.line(lineFault, nil, "", format, args...) }

// tell adds what a host does.
func (h *host) tell(format string, args ...any) { h.w.line(lineState, h, "", format, args...) }

// violate records a broken invariant, with the group and the hosts that the
// story is to be about.
func (w *world) violate(group string, hosts []*host, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.line(lineVerdict, nil, group, "VIOLATION: %s", text)
	if len(w.rep.Violations) == 0 {
		w.story.about, w.story.hosts = group, hosts
	}
	if len(w.rep.Violations) < 10 {
		w.rep.Violations = append(w.rep.Violations, text)
	}
}

// How much of a story is told.
const (
	storySpan   = 12 * time.Second // before the last thing that a host did
	storyLength = 160              // lines
	storyLeases = 2                // newest leases of each host, before its groups start or stop and at the end
)

// render picks what matters: everything if nothing was broken; else, of the
// time before it, the faults, what the hosts and the group of the violation
// did, who had which lease until when, and which epochs were committed.
func (s *story) render(w *world) []string {
	var out []string
	violated := len(w.rep.Violations) > 0
	left := map[*host]int{}
	end := w.now // or when a host last did anything: a cluster that runs nothing at the end may have stood still for long
	for i := range slices.Backward(s.lines) {
		if l := &s.lines[i]; l.host != nil {
			end = l.at
			break
		}
	}
	epoch := !violated || s.about == ""
	for i := len(s.lines) - 1; i >= 0 && len(out) < 4*storyLength; i-- {
		l := &s.lines[i]
		if violated && (end-l.at > int64(storySpan) || len(out) >= storyLength-1) {
			if epoch {
				break
			}
			if l.kind != lineEpoch || l.group != s.about {
				continue // whose the group was then, however long ago that is
			}
		}
		epoch = epoch || l.kind == lineEpoch && l.group == s.about
		mine := !violated || len(s.hosts) == 0 || l.host == nil || slices.Contains(s.hosts, l.host)
		ours := !violated || s.about == "" || l.group == "" || l.group == s.about
		switch {
		case l.kind == lineLease:
			if !violated || !mine || left[l.host] >= storyLeases {
				continue
			}
			left[l.host]++
		case l.kind == lineState && (!mine || !ours), l.kind == lineEpoch && !ours:
			continue
		case l.kind == lineState && l.group != "":
			left[l.host] = 0 // the leases before a start or a stop matter again
		}
		out = append(out, l.String())
	}
	slices.Reverse(out)
	return out
}

func (l *line) String() string {
	who := "-"
	if l.host != nil {
		who = l.host.name
	}
	return fmt.Sprintf("%12.6f  %-4s %s", float64(l.at)/1e9, who, l.text)
}

// Tell is the whole story of a broken invariant: what was broken, what led
// there, and the command that tells it again.
func (r Report) Tell() string {
	var b strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "seed %d, %d nodes: %s\n", r.Seed, r.Config.Nodes, v)
	}
	fmt.Fprintf(&b, "true time in seconds, who, what:\n%s\nagain: %s\n", strings.Join(r.Story, "\n"), r.Config.Command())
	return b.String()
}

// Command is what runs the same configuration again, with its story.
func (c Config) Command() string {
	c = c.withDefaults()
	s := fmt.Sprintf("go run ./bench/sim --seed %d --nodes %d --groups %d --for %s", c.Seed, c.Nodes, c.Groups, c.For)
	if c.Witnesses > 0 {
		s += fmt.Sprintf(" --witnesses %d", c.Witnesses)
	}
	if c.Learners > 0 {
		s += fmt.Sprintf(" --learners %d", c.Learners)
	}
	if c.Model != spec.MajorityNodeSet {
		s += fmt.Sprintf(" --model %s", c.Model)
	}
	if c.Grow {
		s += " --grow"
	}
	if c.Fence {
		s += " --fence"
	}
	if c.Watchdog {
		s += " --watchdog"
	}
	switch {
	case c.Moves:
		s += " --scenario moves"
	case c.Crashes:
		s += " --scenario crashes"
	}
	if len(c.Mix) > 0 {
		s += " --mix " + FormatMix(c.Mix)
	}
	if c.Keep != nil && len(c.Keep) == 0 {
		s += " --keep none"
	} else if c.Keep != nil {
		s += " --keep " + strings.Trim(strings.ReplaceAll(fmt.Sprint(c.Keep), " ", ","), "[]")
	}
	return s + " --story"
}
