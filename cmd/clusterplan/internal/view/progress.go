package view

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
)

// Progress writes what an apply does while it does it. Run tells now and then
// what is still under way; it ends with Close.
type Progress struct {
	w     io.Writer
	style Style
	json  bool

	mu      sync.Mutex
	started map[addr.Address]apply.Event // under way
	quit    chan struct{}
	done    chan struct{}
}

// NewProgress writes to w, as JSON lines or for people.
func NewProgress(w io.Writer, style Style, asJSON bool) *Progress {
	return &Progress{w: w, style: style, json: asJSON, started: map[addr.Address]apply.Event{}, quit: make(chan struct{}), done: make(chan struct{})}
}

// still is how often what is under way is told again.
const still = 10 * time.Second

// Run tells what takes long, until Close.
func (p *Progress) Run() {
	defer close(p.done)
	t := time.NewTicker(still)
	defer t.Stop()
	for {
		select {
		case <-p.quit:
			return
		case now := <-t.C:
			p.tick(now)
		}
	}
}

// Close ends Run.
func (p *Progress) Close() {
	close(p.quit)
	<-p.done
}

func (p *Progress) tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range slices.SortedFunc(maps.Keys(p.started), addr.Compare) {
		e := p.started[a]
		if d := now.Sub(e.Time); d >= still {
			e.Type, e.Elapsed, e.Time = apply.EventProgress, d, now
			p.write(e)
		}
	}
}

// Event writes one event.
func (p *Progress) Event(e apply.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Type {
	case apply.EventStart:
		p.started[e.Addr] = e
	case apply.EventComplete, apply.EventErrored:
		delete(p.started, e.Addr)
	case apply.EventProgress:
		if s, ok := p.started[e.Addr]; ok {
			e.Elapsed = e.Time.Sub(s.Time)
		}
	}
	p.write(e)
}

func (p *Progress) write(e apply.Event) {
	if p.json {
		p.writeJSON(e)
		return
	}
	s, at := p.style, p.style.Bold(e.Addr.String())
	e.Text = plain(e.Text) // nodes and programs say some of it
	switch e.Type {
	case apply.EventStart:
		fmt.Fprintf(p.w, "%s: %s...\n", at, doing(e.Action))
	case apply.EventProgress:
		if e.Text != "" {
			fmt.Fprintf(p.w, "%s: %s... %s [%s]\n", at, doing(e.Action), e.Text, seconds(e.Elapsed))
		} else {
			fmt.Fprintf(p.w, "%s: still %s... [%s]\n", at, doing(e.Action), seconds(e.Elapsed))
		}
	case apply.EventComplete:
		if e.Phase != "" {
			fmt.Fprintf(p.w, "%s: %s: %s %s [%s]\n", at, doing(e.Action), e.Phase, s.Green("done"), seconds(e.Elapsed))
		} else {
			fmt.Fprintf(p.w, "%s: %s after %s\n", at, s.Green(did(e.Action)), seconds(e.Elapsed))
		}
	case apply.EventErrored:
		fmt.Fprintf(p.w, "%s: %s [%s]\n", at, s.Red(doing(e.Action)+" failed"), seconds(e.Elapsed))
	case apply.EventSkipped:
		fmt.Fprintf(p.w, "%s: %s: %s\n", at, s.Yellow("skipped"), e.Text)
	case apply.EventWaiting:
		fmt.Fprintln(p.w, s.Yellow(strings.ToUpper(e.Text[:1])+e.Text[1:]))
	}
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Truncate(time.Second).String()
}

func doing(action string) string {
	switch action {
	case "create":
		return "creating"
	case "update":
		return "changing"
	case "replace":
		return "replacing"
	case "delete":
		return "destroying"
	case "forget":
		return "forgetting"
	case "read":
		return "taking over"
	case planner.ActionImport:
		return "importing"
	}
	return action
}

func did(action string) string {
	switch action {
	case "create":
		return "created"
	case "update":
		return "changed"
	case "replace":
		return "replaced"
	case "delete":
		return "destroyed"
	case "forget":
		return "forgotten"
	case "read":
		return "taken over"
	case planner.ActionImport:
		return "imported"
	}
	return action + " done"
}

// line is one event of `apply --json`, after Terraform's machine-readable UI.
type line struct {
	FormatVersion string           `json:"format_version"`
	Type          string           `json:"type"`
	Level         string           `json:"@level"`
	Message       string           `json:"@message"`
	Timestamp     time.Time        `json:"@timestamp"`
	Version       string           `json:"clusterplan,omitempty"`
	Change        *lineChange      `json:"change,omitempty"`
	Hook          *lineHook        `json:"hook,omitempty"`
	Changes       *planner.Summary `json:"changes,omitempty"`
	Outputs       any              `json:"outputs,omitempty"`
	Checks        []planner.Check  `json:"checks,omitempty"`
	Diagnostic    any              `json:"diagnostic,omitempty"`
}

type lineChange struct {
	Address  string        `json:"address"`
	Previous *addr.Address `json:"previous_address,omitempty"`
	Action   string        `json:"action"`
	Reason   string        `json:"reason,omitempty"`
}

type lineHook struct {
	Address string   `json:"address"`
	Action  string   `json:"action"`
	ID      string   `json:"id,omitempty"`
	Phase   string   `json:"phase,omitempty"`
	Elapsed *float64 `json:"elapsed_seconds,omitempty"` // of an object that was begun
	Error   string   `json:"error,omitempty"`
}

func (p *Progress) writeJSON(e apply.Event) {
	l := line{Type: e.Type, Level: "info", Timestamp: e.Time}
	name := e.Addr.String()
	hook := &lineHook{Address: name, Action: e.Action, ID: e.ID, Phase: e.Phase}
	elapsed := float64(e.Elapsed.Milliseconds()) / 1000
	switch e.Type {
	case apply.EventProgress, apply.EventComplete, apply.EventErrored:
		hook.Elapsed = &elapsed
	}
	switch e.Type {
	case apply.EventPlanned:
		l.Change = &lineChange{Address: name, Previous: e.Previous, Action: e.Action, Reason: e.Reason}
		l.Message = fmt.Sprintf("%s: to %s", name, e.Action)
	case apply.EventSummary:
		sum := e.Summary
		l.Changes = &sum
		if sum.Import > 0 {
			l.Message = fmt.Sprintf("%d imported, ", sum.Import)
		}
		l.Message += fmt.Sprintf("%d added, %d changed, %d destroyed", sum.Create+sum.Replace, sum.Update, sum.Delete+sum.Replace)
	case apply.EventStart:
		l.Hook, l.Message = hook, fmt.Sprintf("%s: %s", name, doing(e.Action))
	case apply.EventProgress:
		l.Hook, l.Message = hook, fmt.Sprintf("%s: still %s [%s]", name, doing(e.Action), seconds(e.Elapsed))
		if e.Text != "" {
			l.Message = fmt.Sprintf("%s: %s: %s [%s]", name, doing(e.Action), e.Text, seconds(e.Elapsed))
		}
	case apply.EventComplete:
		l.Hook, l.Message = hook, fmt.Sprintf("%s: %s after %s", name, did(e.Action), seconds(e.Elapsed))
	case apply.EventSkipped:
		l.Hook, l.Level, l.Message = hook, "warn", fmt.Sprintf("%s: skipped: %s", name, e.Text)
	case apply.EventWaiting:
		l.Level, l.Message = "warn", e.Text
	case apply.EventErrored:
		l.Hook, l.Level = hook, "error"
		if e.Err != nil {
			hook.Error = e.Err.Error()
		}
		l.Message = fmt.Sprintf("%s: %s failed: %s", name, doing(e.Action), hook.Error)
	}
	p.put(l)
}

// Version is the first line.
func (p *Progress) Version(version string) {
	if p.json {
		p.put(line{Type: "version", Level: "info", Message: "clusterplan " + version, Timestamp: time.Now(), Version: version})
	}
}

// Outputs is the last line.
func (p *Progress) Outputs(outputs any) {
	if p.json {
		p.put(line{Type: "outputs", Level: "info", Message: "outputs", Timestamp: time.Now(), Outputs: outputs})
	}
}

// Checks tells what became of the check blocks.
func (p *Progress) Checks(checks []planner.Check) {
	if p.json && len(checks) > 0 {
		p.put(line{Type: "checks", Level: "info", Message: "checks", Timestamp: time.Now(), Checks: checks})
	}
}

// Diagnostic tells a warning or an error.
func (p *Progress) Diagnostic(d planner.Diagnostic) {
	if p.json {
		level := "error"
		if d.Severity == "warning" {
			level = "warn"
		}
		p.put(line{Type: "diagnostic", Level: level, Message: d.Summary, Timestamp: time.Now(), Diagnostic: d})
	}
}

func (p *Progress) put(l line) {
	l.FormatVersion = planner.FormatVersion
	l.Timestamp = l.Timestamp.UTC()
	_ = JSONLine(p.w, l)
}
