// Package eventlog reads the cluster's event log: what follows from what. It is
// pure: events in, a story out. Who writes events, and with which cause, is
// runtime/core's and runtime/confdb's matter.
//
// Every event names the one that it follows from (Cause), or none: then it began
// something by itself, as an order does, or a failure. So the events are trees,
// and Why walks one of them from an effect up to its root.
//
// The log keeps the newest 2,000 events. A chain whose beginning has fallen out of
// it says so.
package eventlog

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Event is one line of the log, as runtime/api tells it.
type Event struct {
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"`
	Node   string    `json:"node,omitempty"`
	Object string    `json:"object,omitempty"`
	Kind   string    `json:"kind"`
	Text   string    `json:"text"`
	Cause  uint64    `json:"cause,omitempty"`
	Author string    `json:"author,omitempty"`
}

// Story is why something is as it is.
type Story struct {
	Chain []Event // the root cause first; each follows from the one before it
	Lost  uint64  // id of the event that the first one follows from, where that is kept no longer; else 0
	// Followed are the events that follow from the chain's last one, directly or
	// not, oldest first; More says how many there are beyond the first maxFollowed.
	Followed []Event
	More     int
}

const maxFollowed = 20

// About tells whether e is about an address or a name: group.web,
// group.web.resource.server, node.n1, or web, n1.
func About(e Event, what string) bool {
	if e.Object == what || e.Object == "group."+what || e.Object == "node."+what {
		return true
	}
	// A node with for_each has another address than name.
	if e.Node == what && strings.HasPrefix(e.Object, "node.") {
		return true
	}
	// What its group's owner says of a resource stands under the group.
	group, resource, ok := strings.Cut(what, ".resource.")
	return ok && e.Object == group && slices.Contains(strings.FieldsFunc(e.Text, between), resource)
}

func between(r rune) bool { return strings.ContainsRune(" :;,", r) }

// Why tells how the newest event about what came to be; events are in order of
// their ids. ok is false where no kept event is about it.
func Why(events []Event, what string) (s Story, ok bool) {
	for i := range slices.Backward(events) {
		if About(events[i], what) {
			return Explain(events, events[i].ID)
		}
	}
	return Story{}, false
}

// Explain is Why for one event, by its id.
func Explain(events []Event, id uint64) (s Story, ok bool) {
	at := func(id uint64) (int, bool) {
		return slices.BinarySearchFunc(events, id, func(e Event, id uint64) int {
			switch {
			case e.ID < id:
				return -1
			case e.ID > id:
				return 1
			}
			return 0
		})
	}
	end, found := at(id)
	if !found {
		return Story{}, false
	}
	for i := end; ; {
		e := events[i]
		s.Chain = append(s.Chain, e)
		if e.Cause == 0 || e.Cause >= e.ID { // a cause comes before its effect: nothing else is followed
			break
		}
		if i, found = at(e.Cause); !found {
			s.Lost = e.Cause
			break
		}
	}
	slices.Reverse(s.Chain)
	from := map[uint64]bool{id: true}
	for _, e := range events[end+1:] {
		if !from[e.Cause] {
			continue
		}
		from[e.ID] = true
		if len(s.Followed) == maxFollowed {
			s.More++
			continue
		}
		s.Followed = append(s.Followed, e)
	}
	return s, true
}

// Write tells the story to a person: a line an event, numbered, with its time,
// and how long after the one before.
func (s Story) Write(w io.Writer) error {
	var b strings.Builder
	if s.Lost > 0 {
		fmt.Fprintf(&b, "     what event %d was, which this follows from, is not kept any more\n", s.Lost)
	}
	for i, e := range s.Chain {
		gap := ""
		if i > 0 {
			gap = "+" + Gap(e.Time.Sub(s.Chain[i-1].Time))
		}
		fmt.Fprintf(&b, "%3d  %s  %-9s %s%s%s\n", i+1, stamp(e.Time), gap, strings.Repeat("  ", min(i, 8)), e.Text, tail(e))
	}
	if len(s.Followed) > 0 {
		b.WriteString("     and from that followed:\n")
		last := s.Chain[len(s.Chain)-1].Time
		for _, e := range s.Followed {
			fmt.Fprintf(&b, "     %s  %-9s %s%s\n", stamp(e.Time), "+"+Gap(e.Time.Sub(last)), e.Text, tail(e))
		}
		if s.More > 0 {
			fmt.Fprintf(&b, "     and %d more\n", s.More)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

func tail(e Event) string {
	if e.Author == "" {
		return ""
	}
	return "  (by " + e.Author + ")"
}

// Gap is a span between two events, in words short enough for a column. The
// times are those of the nodes that proposed them: their clocks may differ, and
// then it is negative.
func Gap(d time.Duration) string {
	switch a := d.Abs(); {
	case a < 10*time.Second:
		return fmt.Sprintf("%.3fs", d.Seconds())
	case a < time.Hour:
		return d.Round(time.Second).String()
	default:
		return d.Round(time.Minute).String()
	}
}
