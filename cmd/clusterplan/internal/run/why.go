package run

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/eventlog"
)

// Why is `events --why ADDR --json`.
type Why struct {
	FormatVersion string         `json:"format_version"`
	Object        string         `json:"object"`
	Lost          uint64         `json:"lost,omitempty"` // the event that the chain's first one follows from, kept no longer
	Chain         []client.Event `json:"chain"`          // root cause first
	Followed      []client.Event `json:"followed"`       // from the chain's last one
	story         eventlog.Story
}

// Write tells it to a person.
func (w Why) Write(out io.Writer) error { return view.Tame(w.story).Write(out) }

// Why tells how the newest event about an address or name came to be.
func (s *Session) Why(ctx context.Context, what string) (Why, error) {
	var events []eventlog.Event
	err := s.Events(ctx, 0, false, func(e client.Event) error {
		events = append(events, eventlog.Event{ID: e.ID, Time: e.Time, Node: e.Node, Object: e.Object, Kind: e.Kind, Text: e.Text, Cause: e.Cause, Author: e.Author})
		return nil
	})
	if err != nil {
		return Why{}, err
	}
	story, ok := eventlog.Why(events, what)
	if !ok {
		return Why{}, fmt.Errorf("no kept event is about %s; the log is about %s", what, known(events))
	}
	return Why{FormatVersion: client.FormatVersion, Object: what, Lost: story.Lost, Chain: wireEvents(story.Chain), Followed: wireEvents(story.Followed), story: story}, nil
}

// known are the addresses that events are about.
func known(events []eventlog.Event) string {
	var names []string
	for _, e := range events {
		if e.Object != "" && !slices.Contains(names, e.Object) {
			names = append(names, e.Object)
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "nothing yet"
	case len(names) > 20:
		names = append(names[:20], "others")
	}
	return strings.Join(names, ", ")
}

func wireEvents(events []eventlog.Event) []client.Event {
	out := make([]client.Event, len(events))
	for i, e := range events {
		out[i] = client.Event{FormatVersion: client.FormatVersion, ID: e.ID, Time: e.Time, Node: e.Node, Object: e.Object, Kind: e.Kind, Text: e.Text, Cause: e.Cause, Author: e.Author}
	}
	return out
}
