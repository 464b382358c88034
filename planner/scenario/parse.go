package scenario

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Suffix is how the name of a scenario file ends.
const Suffix = ".scenario.hcl"

// What a file may be, and a scenario take. Virtual time is not free: three nodes
// take some 2 s of a processor for each hour.
const (
	MaxSize  = 256 << 10
	MaxSteps = 500
	MaxWait  = 24 * time.Hour // all waits of a scenario together
	maxDepth = 64
)

// Scenario is one scenario block.
type Scenario struct {
	Name        string
	Description string
	Seed        uint64    // of the simulation; 1 unless given
	Clock       time.Time // the time of day at its start; zero: it doesn't matter
	Steps       []Step
	Range       hcl.Range
}

// Step is one thing that is done, and what is expected after it.
type Step struct {
	Name   string // the label, or what it does
	Action Action
	Wait   *time.Duration // nil: until the cluster is at rest
	Expect []Expect
	Range  hcl.Range
}

// Kinds of actions.
const (
	ActNothing = ""
	ActLose    = "lose"
	ActKill    = "kill"
	ActHang    = "hang"
	ActCut     = "cut"
	ActIsolate = "isolate"
	ActHeal    = "heal"
	ActStart   = "start"
	ActMove    = "move"
	ActPause   = "pause"
	ActDrain   = "drain"
	ActResume  = "resume"
	ActOffline = "offline"
	ActOnline  = "online"
)

// Action is what a step does.
type Action struct {
	Kind   string
	Words  []string // what it is done to, as in the file: node.n["a"], zone.east, device
	Nodes  []string // names
	Others []string // cut: the other side
	Device bool     // lose: the quorum device
	All    bool     // heal: everything
	Groups []string // names
	To     string   // move: a node's name; "": any other
	Range  hcl.Range
}

// Expect is what has to be true after a step. Of a group, what it says holds for each of Groups.
type Expect struct {
	Quorum, Refused *bool
	Groups          []addr.Address
	Owners          []string // any of these nodes
	Nobody          bool
	State           string
	NotOn           []string
	MaxDowntime     *time.Duration
	At              map[string]hcl.Range // of each attribute
	Range           hcl.Range
}

// Parse reads a scenario file. All that is wrong with it is told at once.
func Parse(src []byte, name string, def *lang.Definition) ([]Scenario, *hcl.File, hcl.Diagnostics) {
	if d := tooMuch(src, name); d != nil {
		return nil, nil, hcl.Diagnostics{d}
	}
	f, diags := lang.Parse(src, name)
	if f == nil {
		return nil, nil, diags
	}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok && !diags.HasErrors() {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "No scenario file", Detail: name + " is JSON by its name, and scenarios are written in HCL. Rename it to end in .scenario.hcl."})
	}
	if !ok || diags.HasErrors() {
		return nil, f, diags
	}
	r := &reader{def: def, diags: diags}
	r.known()
	r.attributes(body, "A scenario file", nil)
	var out []Scenario
	for _, b := range body.Blocks {
		if b.Type != "scenario" {
			r.unknownBlock(b, "A scenario file", []string{"scenario"})
			continue
		}
		out = append(out, r.scenario(b))
	}
	seen := map[string]hcl.Range{}
	for i := range out {
		s := &out[i]
		if first, ok := seen[s.Name]; ok {
			r.fail(s.Range, "Duplicate scenario", "There is a scenario %q at %s already. Give this one another name.", s.Name, first)
		}
		seen[s.Name] = s.Range
	}
	if len(out) == 0 && !r.diags.HasErrors() {
		r.fail(hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, "No scenario", "The file has no scenario \"NAME\" { ... } block.")
	}
	if r.diags.HasErrors() {
		return nil, f, r.diags
	}
	return out, f, r.diags
}

// tooMuch refuses what could exhaust the parser: it goes down with the nesting.
func tooMuch(src []byte, name string) *hcl.Diagnostic {
	at := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
	if len(src) > MaxSize {
		return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Scenario file is too big", Subject: &at,
			Detail: fmt.Sprintf("It has %d bytes, and at most %d are read. Write several files: --scenario may be given often.", len(src), MaxSize)}
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, run := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			depth = max(depth-1, 0)
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			run++
		case hclsyntax.TokenNewline:
			run = 0
		case hclsyntax.TokenNumberLit:
			// As a text, 1e999999999 would have as many digits.
			if len(t.Bytes) > 30 || bytes.ContainsAny(t.Bytes, "eE") {
				return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Number is too long", Subject: t.Range.Ptr(),
					Detail: "Numbers here have 30 digits at most, and no exponent."}
			}
		}
		if depth > maxDepth || run > maxDepth {
			return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Nested too deeply", Subject: t.Range.Ptr(),
				Detail: fmt.Sprintf("Brackets and operators are nested more than %d deep here. A scenario needs few.", maxDepth)}
		}
	}
	return nil
}

// reader reads one file.
type reader struct {
	def    *lang.Definition
	diags  hcl.Diagnostics
	nodes  map[addr.Address]string // name by address
	groups map[addr.Address]string
	zones  map[string][]string
}

func (r *reader) known() {
	r.nodes, r.groups = map[addr.Address]string{}, map[addr.Address]string{}
	d := r.def.Spec()
	for i := range d.Nodes {
		r.nodes[d.Nodes[i].Addr] = d.Nodes[i].Name
	}
	for i := range d.Groups {
		r.groups[d.Groups[i].Addr] = d.Groups[i].Name
	}
	_, r.zones = d.Zones()
}

func (r *reader) fail(at hcl.Range, summary, detail string, args ...any) {
	r.diags = append(r.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(detail, args...), Subject: &at})
}

// didYouMean is lang's, for words.
func didYouMean(word string, known []string) string {
	if n := lang.Nearest(word, known); n != "" {
		return fmt.Sprintf(" Did you mean %s?", n)
	}
	return ""
}

// attributes are those of a body in the order of the source, without those that
// are not known, which are told.
func (r *reader) attributes(b *hclsyntax.Body, what string, known []string) []*hclsyntax.Attribute {
	var out []*hclsyntax.Attribute
	for _, a := range b.Attributes {
		if slices.Contains(known, a.Name) {
			out = append(out, a)
		} else if len(known) == 0 {
			r.fail(a.NameRange, "Unexpected attribute", "%s takes no attributes, only blocks.", what)
		} else {
			r.fail(a.NameRange, "Unknown attribute", "%s has no %q.%s It has: %s.", what, a.Name, didYouMean(a.Name, known), strings.Join(known, ", "))
		}
	}
	slices.SortFunc(out, func(x, y *hclsyntax.Attribute) int { return x.NameRange.Start.Byte - y.NameRange.Start.Byte })
	slices.SortStableFunc(r.diags, func(x, y *hcl.Diagnostic) int {
		if x.Subject == nil || y.Subject == nil {
			return 0
		}
		return x.Subject.Start.Byte - y.Subject.Start.Byte
	})
	return out
}

func (r *reader) unknownBlock(b *hclsyntax.Block, what string, known []string) {
	if len(known) == 0 {
		r.fail(b.TypeRange, "Unexpected block", "%s takes no blocks.", what)
		return
	}
	r.fail(b.TypeRange, "Unknown block", "%s has no block %q.%s It has: %s.", what, b.Type, didYouMean(b.Type, known), strings.Join(known, ", "))
}

func (r *reader) scenario(b *hclsyntax.Block) Scenario {
	s := Scenario{Seed: 1, Range: b.DefRange()}
	if len(b.Labels) != 1 || b.Labels[0] == "" {
		r.fail(b.DefRange(), "A scenario has one name", "Write scenario \"what happens\" { ... }.")
	} else {
		s.Name = b.Labels[0]
	}
	for _, a := range r.attributes(b.Body, "A scenario", []string{"description", "seed", "clock"}) {
		switch a.Name {
		case "description":
			s.Description, _ = r.text(a)
		case "seed":
			if v, ok := r.value(a.Expr, cty.Number, "a whole number"); ok {
				n := v.AsBigFloat()
				u, _ := n.Uint64()
				if !n.IsInt() || n.Sign() < 0 || n.MinPrec() > 64 || n.MantExp(nil) > 64 {
					r.fail(a.Expr.Range(), "Invalid seed", "A seed is a whole number from 0 to 2^64 - 1.")
				}
				s.Seed = u
			}
		case "clock":
			if text, ok := r.text(a); ok {
				at, err := time.Parse(time.RFC3339, text)
				if err != nil || at.Year() < 1970 || at.Year() > 2200 {
					r.fail(a.Expr.Range(), "Invalid time", "%q is no time as \"2026-03-01T21:55:00Z\".", short(text))
				}
				s.Clock = at
			}
		}
	}
	var waits time.Duration
	for _, step := range b.Body.Blocks {
		if step.Type != "step" {
			r.unknownBlock(step, "A scenario", []string{"step"})
			continue
		}
		if len(s.Steps) == MaxSteps {
			r.fail(step.DefRange(), "Too many steps", "A scenario has at most %d steps. Write several scenarios.", MaxSteps)
			break
		}
		one := r.step(step)
		if one.Wait != nil {
			if waits += *one.Wait; waits > MaxWait {
				r.fail(step.DefRange(), "Waits are too long", "The waits of a scenario may be %s together at most, and with this one they are %s. For a window in the night give the scenario a clock, as clock = \"2026-03-01T21:55:00Z\"; for long delays, a variable of the definition.", spec.Duration(MaxWait), spec.Duration(waits))
				waits = 0
			}
		}
		s.Steps = append(s.Steps, one)
	}
	if len(b.Body.Blocks) == 0 {
		r.fail(b.DefRange(), "Scenario without steps", "Write what happens as step \"NAME\" { ... } blocks.")
	}
	return s
}

// short is a text for a message.
func short(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}

// value works out an expression, and has it be of a type; "what" says of which.
func (r *reader) value(e hclsyntax.Expression, t cty.Type, what string) (cty.Value, bool) {
	v, ok := r.any(e)
	if !ok {
		return v, false
	}
	if v.IsMarked() {
		r.fail(e.Range(), "Sensitive value", "What a scenario says is shown. Use a value that may be, or nonsensitive() in a local value of the definition.")
		return v, false
	}
	if v.IsNull() || !v.IsKnown() {
		r.fail(e.Range(), "No value", "This has to be %s.", what)
		return v, false
	}
	v, err := convert.Convert(v, t)
	if err != nil {
		r.fail(e.Range(), "Wrong type", "This has to be %s.", what)
		return v, false
	}
	return v, true
}

// any works out an expression.
func (r *reader) any(e hclsyntax.Expression) (cty.Value, bool) {
	before := len(r.diags)
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.FunctionCallExpr:
			r.fail(n.Range(), "No functions here", "A scenario file has literals and references only. Work the value out in a local value of the definition, and refer to that.")
		case *hclsyntax.ForExpr:
			r.fail(n.Range(), "No for here", "A scenario file has literals and references only. Work the value out in a local value of the definition, and refer to that.")
		}
		return nil
	})
	if len(r.diags) > before {
		return cty.NilVal, false
	}
	v, diags := r.def.ValueOf(e)
	r.diags = append(r.diags, diags...)
	return v, !diags.HasErrors()
}

func (r *reader) text(a *hclsyntax.Attribute) (string, bool) {
	v, ok := r.value(a.Expr, cty.String, "a text")
	if !ok {
		return "", false
	}
	return v.AsString(), true
}

func (r *reader) truth(a *hclsyntax.Attribute) *bool {
	v, ok := r.value(a.Expr, cty.Bool, "true or false")
	if !ok {
		return nil
	}
	is := v.True()
	return &is
}

func (r *reader) span(a *hclsyntax.Attribute) *time.Duration {
	text, ok := r.text(a)
	if !ok {
		return nil
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		r.fail(a.Expr.Range(), "Invalid duration", "%q is no duration as \"500ms\", \"5s\" or \"1h30m\".", short(text))
		return nil
	case d < 0 || d > MaxWait:
		r.fail(a.Expr.Range(), "Duration out of range", "A duration here is from 0s to %s.", spec.Duration(MaxWait))
		return nil
	}
	return &d
}
