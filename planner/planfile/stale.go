package planfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// StaleState tells why the plan can't be applied by this program to the state
// as it is now, of which journal records are not folded in; "": it can.
func (f *File) StaleState(program string, st *statefile.State, journal int) string {
	r := f.RestsOn
	switch {
	case program != f.Program:
		return fmt.Sprintf("clusterplan %s made it, and this is %s", f.Program, program)
	case r.Lineage == "" && st.Lineage != "":
		return "there was no state when it was made, and there is one now"
	case r.Lineage != "" && st.Lineage == "":
		return fmt.Sprintf("it was made from the state %s, and there is none now", r.Lineage)
	case r.Lineage != st.Lineage:
		return fmt.Sprintf("it was made from the state %s, and this is another one, %s", r.Lineage, st.Lineage)
	case r.Serial != st.Serial:
		return fmt.Sprintf("the state has serial %d now, not %d: something was applied since", st.Serial, r.Serial)
	case r.Journal != journal:
		return "an apply was begun since, and did not come to its end"
	}
	return ""
}

// shown is what is compared of a plan's JSON.
type shown struct {
	Complete       bool                       `json:"complete"`
	ConfigRevision uint64                     `json:"config_revision"`
	Changes        []json.RawMessage          `json:"changes"`
	OutputChanges  map[string]json.RawMessage `json:"output_changes"`
	Steps          []shownStep                `json:"steps"`
	Quorum         *struct {
		Lowest int `json:"lowest"`
	} `json:"quorum"`
	Availability []shownOutage `json:"availability"`
}

type shownStep struct {
	Address string `json:"address"`
	Phase   string `json:"phase"`
}

type shownOutage struct {
	Group         string `json:"group"`
	Interruptions int    `json:"interruptions"`
	MaxMS         int64  `json:"max_ms"` // -1: until a node is back
}

// StalePlan tells why now, the plan as it is worked out today, is not what was
// shown: other changes, other steps, or the same ones with fewer votes up or
// longer interruptions. "": it is, or it is better. The order of steps and who
// owns what may differ.
func (f *File) StalePlan(now *planner.Plan) (string, error) {
	text, err := MarshalPlan(now)
	if err != nil {
		return "", err
	}
	var was, is shown
	if err := json.Unmarshal(f.Plan, &was); err != nil {
		return "", damaged(err)
	}
	if err := json.Unmarshal(text, &is); err != nil {
		return "", err
	}
	if f.RestsOn.ConfigRevision != is.ConfigRevision {
		if is.ConfigRevision == 0 {
			return "the cluster's configuration can't be read now", nil
		}
		return fmt.Sprintf("the cluster's configuration is at revision %d now, not %d: somebody changed it", is.ConfigRevision, f.RestsOn.ConfigRevision), nil
	}
	diffs, err := differences(was.Changes, is.Changes)
	if err != nil {
		return "", damaged(err)
	}
	for _, name := range slices.Sorted(maps.Keys(is.OutputChanges)) {
		if !bytes.Equal(was.OutputChanges[name], is.OutputChanges[name]) {
			diffs = append(diffs, "the output "+name+" would change otherwise than planned")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was.OutputChanges)) {
		if _, still := is.OutputChanges[name]; !still {
			diffs = append(diffs, "the output "+name+" would not change any more")
		}
	}
	if was.Complete && !is.Complete {
		diffs = append(diffs, "not all that the plan saw can be seen now")
	}
	if len(diffs) == 0 {
		diffs = worse(&was, &is)
	}
	const most = 3
	if n := len(diffs) - most; n > 0 {
		diffs = append(diffs[:most], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(diffs, "; "), nil
}

// MarshalPlan writes a plan as a file holds it, and as `plan --json` prints it
// but for the layout.
func MarshalPlan(p *planner.Plan) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// change is one change of a plan, taken apart.
type change struct {
	address, action string
	fields          map[string]json.RawMessage
}

// changes are those that do something, by address. What they say of their
// reasons is for people, and may count days.
func changes(all []json.RawMessage) (map[string]change, error) {
	out := map[string]change{}
	for _, raw := range all {
		var c struct {
			Address         string    `json:"address"`
			PreviousAddress *string   `json:"previous_address"`
			Actions         []string  `json:"actions"`
			Importing       *struct{} `json:"importing"`
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, err
		}
		if slices.Equal(c.Actions, planner.ActionNoOp) && c.PreviousAddress == nil && c.Importing == nil {
			continue
		}
		one := change{address: c.Address, action: strings.Join(c.Actions, " and ")}
		if c.Importing != nil && slices.Equal(c.Actions, planner.ActionNoOp) {
			one.action = planner.ActionImport
		}
		if err := json.Unmarshal(raw, &one.fields); err != nil {
			return nil, err
		}
		delete(one.fields, "why")
		out[c.Address] = one
	}
	return out, nil
}

func differences(before, after []json.RawMessage) ([]string, error) {
	was, err := changes(before)
	if err != nil {
		return nil, err
	}
	is, err := changes(after)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, a := range slices.Sorted(maps.Keys(is)) {
		n := is[a]
		w, ok := was[a]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s would change too (%s)", a, n.action))
		case w.action != n.action:
			out = append(out, fmt.Sprintf("%s was to %s, and would %s now", a, w.action, n.action))
		case !maps.EqualFunc(w.fields, n.fields, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) }):
			out = append(out, fmt.Sprintf("%s would %s otherwise than planned", a, n.action))
		}
	}
	for _, a := range slices.Sorted(maps.Keys(was)) {
		if _, still := is[a]; !still {
			out = append(out, fmt.Sprintf("%s was to %s, and has nothing to do now", a, was[a].action))
		}
	}
	return out, nil
}

// worse compares two plans with the same changes.
func worse(was, is *shown) []string {
	var out []string
	count := func(steps []shownStep) map[shownStep]int {
		n := map[shownStep]int{}
		for _, s := range steps {
			n[s]++
		}
		return n
	}
	if !maps.Equal(count(was.Steps), count(is.Steps)) {
		out = append(out, "nodes would be touched by other steps than planned")
	}
	if len(is.Steps) > 0 && was.Quorum != nil && is.Quorum != nil && is.Quorum.Lowest < was.Quorum.Lowest {
		out = append(out, fmt.Sprintf("only %d votes would be up on the way, not %d", is.Quorum.Lowest, was.Quorum.Lowest))
	}
	planned := map[string]shownOutage{}
	for _, o := range was.Availability {
		planned[o.Group] = o
	}
	for _, o := range is.Availability {
		p, ok := planned[o.Group]
		switch {
		case !ok:
			out = append(out, o.Group+" would be interrupted, and was not to be")
		case o.Interruptions > p.Interruptions:
			out = append(out, fmt.Sprintf("%s would be interrupted %d times, not %d", o.Group, o.Interruptions, p.Interruptions))
		case o.MaxMS < 0 && p.MaxMS >= 0:
			out = append(out, o.Group+" would be down until a node is back")
		case p.MaxMS >= 0 && o.MaxMS > p.MaxMS:
			out = append(out, fmt.Sprintf("%s would be interrupted for up to %d ms, not %d", o.Group, o.MaxMS, p.MaxMS))
		}
	}
	return out
}
