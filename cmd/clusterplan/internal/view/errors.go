package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/planner"
)

// DiagnosticsError is a definition's or a plan's diagnostics on their way up as
// an error; at least one of them is one.
type DiagnosticsError struct {
	Diags hcl.Diagnostics
	Files map[string]*hcl.File // for the snippets
}

func (e *DiagnosticsError) Error() string { return e.Diags.Error() }

// Hint is an error with what to do about it.
type Hint struct {
	Err  error
	Hint string
}

func (h *Hint) Error() string { return h.Err.Error() }
func (h *Hint) Unwrap() error { return h.Err }

// Error writes err as people read it.
func (s Style) Error(w io.Writer, err error) {
	var diags *DiagnosticsError
	if errors.As(err, &diags) {
		s.Diagnostics(w, diags.Diags, diags.Files)
		return
	}
	text := err.Error()
	fmt.Fprintf(w, "%s %s\n", s.paint("1;31", "Error:"), s.Bold(upper(text)))
	var hint *Hint
	if errors.As(err, &hint) && hint.Hint != "" {
		fmt.Fprintf(w, "\n%s\n", hint.Hint)
	}
}

// ErrorDiagnostic is an error with its hint as one of JSON's diagnostics.
func ErrorDiagnostic(err error) planner.Diagnostic {
	d := planner.Diagnostic{Severity: "error", Summary: upper(err.Error())}
	var hint *Hint
	if errors.As(err, &hint) {
		d.Detail = hint.Hint
	}
	return d
}

// Diagnostics writes errors and warnings with the lines that they are about.
func (s Style) Diagnostics(w io.Writer, diags hcl.Diagnostics, files map[string]*hcl.File) {
	if len(diags) == 0 {
		return
	}
	out := hcl.NewDiagnosticTextWriter(w, files, uint(s.width()), s.Color)
	_ = out.WriteDiagnostics(diags)
}

// upper makes a text begin as a sentence does, but for a name or an address.
func upper(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if first == "" || strings.ContainsAny(strings.TrimSuffix(first, ":"), "._/[\"-") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// validateJSON is `validate --json`.
type validateJSON struct {
	FormatVersion string               `json:"format_version"`
	Valid         bool                 `json:"valid"`
	ErrorCount    int                  `json:"error_count"`
	WarningCount  int                  `json:"warning_count"`
	Diagnostics   []planner.Diagnostic `json:"diagnostics"`
}

// ValidateJSON writes the result of validate.
func ValidateJSON(w io.Writer, diags hcl.Diagnostics) error {
	out := validateJSON{FormatVersion: planner.FormatVersion, Valid: !diags.HasErrors(), Diagnostics: planner.Diagnostics(diags)}
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			out.ErrorCount++
		} else {
			out.WarningCount++
		}
	}
	return JSON(w, out)
}

// JSON writes one object, indented.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
