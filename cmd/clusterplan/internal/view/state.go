package view

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// objectJSON is an object of the state without what is the provider's own.
type objectJSON struct {
	FormatVersion string `json:"format_version,omitempty"` // where it stands alone

	Address    string          `json:"address"`
	Type       string          `json:"type"`
	Provider   string          `json:"provider"`
	ID         string          `json:"id"`
	Attributes json.RawMessage `json:"attributes"`
	Sensitive  []string        `json:"sensitive,omitempty"` // attributes that are null here for that
	DependsOn  []string        `json:"depends_on"`
	Phases     []string        `json:"phases,omitempty"`
	Tainted    string          `json:"tainted,omitempty"`
}

// Object is a state's object as JSON has it, alone.
func Object(o *statefile.Object) any {
	out := object(o)
	out.FormatVersion = statefile.FormatVersion
	return out
}

func object(o *statefile.Object) objectJSON {
	out := objectJSON{Address: o.Addr.String(), Type: o.Type, Provider: o.Provider, ID: o.ID, Attributes: o.Attributes,
		Sensitive: o.Sensitive, DependsOn: []string{}, Phases: o.Phases, Tainted: o.Tainted}
	if attrs, ok := decode(o.Attributes).(map[string]any); ok && len(o.Sensitive) > 0 {
		for _, name := range o.Sensitive {
			attrs[name] = nil
		}
		out.Attributes, _ = json.Marshal(attrs) // it was JSON before
	}
	for _, d := range o.DependsOn {
		out.DependsOn = append(out.DependsOn, d.String())
	}
	return out
}

// StateJSON writes a state without its secrets; outputs nil leaves them out.
func StateJSON(w io.Writer, snap *statefile.Snapshot, outputs map[string]statefile.Output) error {
	objects := make([]any, len(snap.State.Objects))
	for i := range snap.State.Objects {
		objects[i] = object(&snap.State.Objects[i])
	}
	pending := []map[string]any{}
	for _, p := range snap.Pending {
		pending = append(pending, map[string]any{"address": p.Addr.String(), "action": p.Action, "phase": p.Phase, "since": p.Since})
	}
	out := map[string]any{"format_version": planner.FormatVersion, "serial": snap.State.Serial, "lineage": snap.State.Lineage,
		"objects": objects, "pending": pending}
	if c := snap.State.Cluster; c != nil {
		out["cluster"] = map[string]string{"id": c.ID, "name": c.Name}
	}
	if broken := snap.State.Definition.Broken; len(broken) > 0 {
		out["broken_guarantees"] = broken
	}
	if outputs != nil {
		out["outputs"] = outputsJSON(outputs)
	}
	return JSON(w, out)
}

func outputsJSON(outputs map[string]statefile.Output) any {
	type output struct {
		Value     json.RawMessage `json:"value"`
		Type      json.RawMessage `json:"type"`
		Sensitive bool            `json:"sensitive"`
	}
	out := map[string]output{}
	for name, o := range outputs {
		out[name] = output{o.Value, o.Type, o.Sensitive}
	}
	return out
}

// OutputsJSON writes all outputs.
func OutputsJSON(w io.Writer, outputs map[string]statefile.Output) error {
	return JSON(w, outputsJSON(outputs))
}

// Outputs writes all outputs for people.
func (s Style) Outputs(w io.Writer, outputs map[string]statefile.Output) error {
	if len(outputs) == 0 {
		_, err := fmt.Fprintln(w, "No outputs. Those of the definition's output blocks are there once it is applied.")
		return err
	}
	width := widest(slices.Collect(maps.Keys(outputs)))
	for _, name := range slices.Sorted(maps.Keys(outputs)) {
		if _, err := fmt.Fprintf(w, "%s = %s\n", pad(name, width), Value(outputs[name])); err != nil {
			return err
		}
	}
	return nil
}

// Object writes one object of the state.
func (s Style) Object(w io.Writer, o *statefile.Object) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", s.Bold(o.Addr.String()))
	rows := [][]string{{"  type", "= " + o.Type}, {"  provider", "= " + o.Provider}, {"  id", "= " + o.ID}}
	if attrs, ok := decode(o.Attributes).(map[string]any); ok {
		if failover, ok := attrs["failover"].(map[string]any); ok && o.Type == addr.TypeGroup && failover["threshold"] == json.Number("0") {
			failover["threshold"] = verbatim("0 (nodes - 1)")
		}
		for _, name := range slices.Sorted(maps.Keys(attrs)) {
			if name == "provider" && o.Type == addr.TypeNode {
				continue // it stands above
			}
			if m, ok := attrs[name].(map[string]any); ok && len(m) == 0 {
				continue // nothing is set in it
			}
			text := jsonText(attrs[name])
			if slices.Contains(o.Sensitive, name) {
				text = "(sensitive value)"
			}
			rows = append(rows, []string{"  " + key(name), "= " + text})
		}
	}
	if len(o.DependsOn) > 0 {
		var on []string
		for _, d := range o.DependsOn {
			on = append(on, d.String())
		}
		rows = append(rows, []string{"  depends on", "= " + strings.Join(on, ", ")})
	}
	if len(o.Phases) > 0 {
		rows = append(rows, []string{"  phases done", "= " + strings.Join(o.Phases, ", ")})
	}
	if o.Tainted != "" {
		rows = append(rows, []string{"  tainted", "= " + o.Tainted})
	}
	if err := table(&b, rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// State writes all of a state.
func (s Style) State(w io.Writer, snap *statefile.Snapshot) error {
	st := snap.State
	if len(st.Objects) == 0 && st.Cluster == nil {
		_, err := fmt.Fprintln(w, "The state is empty.")
		return err
	}
	if st.Cluster != nil {
		fmt.Fprintf(w, "%s  id %s, serial %d\n\n", s.Bold("Cluster "+st.Cluster.Name), st.Cluster.ID, st.Serial)
	}
	if broken := st.Definition.Broken; len(broken) > 0 {
		fmt.Fprintf(w, "%s %s did not hold when it was applied, which was allowed.\n\n", s.Yellow("Guarantees:"), strings.Join(broken, ", "))
	}
	for i := range st.Objects {
		if err := s.Object(w, &st.Objects[i]); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, p := range snap.Pending {
		fmt.Fprintf(w, "%s: %s was begun at %s and its end is not known; the next apply settles it\n", s.Yellow(p.Addr.String()), p.Action, p.Since.Local().Format("2006-01-02 15:04:05"))
	}
	if len(st.Outputs) == 0 {
		return nil
	}
	fmt.Fprintf(w, "%s\n", s.Bold("Outputs"))
	return s.Outputs(w, st.Outputs)
}
