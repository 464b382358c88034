package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/planfile"
)

// PlanFile writes the plan of a file as people read it: the text that plan
// printed.
func (s Style) PlanFile(w io.Writer, f *planfile.File) error {
	_, err := io.WriteString(w, s.recorded(f.Text))
	return err
}

// PlanFileWarnings writes the warnings of a file's plan.
func (s Style) PlanFileWarnings(w io.Writer, f *planfile.File) error {
	var plan struct {
		Diagnostics []planner.Diagnostic `json:"diagnostics"`
	}
	if err := json.Unmarshal(f.Plan, &plan); err != nil {
		return fmt.Errorf("the plan file's diagnostics: %w", err)
	}
	for _, d := range plan.Diagnostics {
		fmt.Fprintf(w, "%s %s\n\n%s\n\n", s.Yellow("Warning:"), s.Bold(plain(d.Summary)), plain(d.Detail))
	}
	return nil
}

// PlanFileJSON writes the plan of a file as `plan --json` printed it.
func PlanFileJSON(w io.Writer, f *planfile.File) error {
	var b bytes.Buffer
	if err := json.Indent(&b, f.Plan, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// codes are what paint writes.
var codes = []string{"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"}

// recorded is a text from a file, which paint coloured, in this style. A file
// may come from anywhere: whatever else would move a terminal's cursor is shown
// as a replacement character.
func (s Style) recorded(text string) string {
	if strings.IndexByte(text, 0x1b) < 0 {
		return plain(text)
	}
	var b strings.Builder
	b.Grow(len(text))
	for {
		i := strings.IndexByte(text, 0x1b)
		if i < 0 {
			b.WriteString(plain(text))
			return b.String()
		}
		b.WriteString(plain(text[:i]))
		text = text[i:]
		known := ""
		for _, c := range codes {
			if strings.HasPrefix(text, c) {
				known = c
			}
		}
		switch {
		case known == "":
			b.WriteRune('\uFFFD')
			text = text[1:]
		case s.Color:
			b.WriteString(known)
			fallthrough
		default:
			text = text[len(known):]
		}
	}
}

// harmless tells whether text is plain ASCII with nothing in it for recorded to change.
func harmless(text []byte) bool {
	for _, c := range text {
		if c >= 0x7f || c < 0x20 && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// plain replaces control characters and those that turn the direction of text.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if moves(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// moves tells whether a character would move a terminal's cursor, or turn text.
func moves(r rune) bool {
	if r == '\n' || r == '\t' {
		return false
	}
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
