package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcled"

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

// Error writes err as people read it. Nothing in it moves a terminal's cursor,
// whoever it comes from.
func (s Style) Error(w io.Writer, err error) {
	var diags *DiagnosticsError
	if errors.As(err, &diags) {
		s.Diagnostics(w, diags.Diags, diags.Files)
		return
	}
	text := plain(err.Error())
	fmt.Fprintf(w, "%s %s\n", s.paint("1;31", "Error:"), s.Bold(upper(text)))
	var hint *Hint
	if errors.As(err, &hint) && hint.Hint != "" {
		fmt.Fprintf(w, "\n%s\n", plain(hint.Hint))
	}
}

// JSONDiagnostics are diagnostics in the JSON form, with the source that they are
// about where files has it.
func JSONDiagnostics(diags hcl.Diagnostics, files map[string]*hcl.File) []planner.Diagnostic {
	out := planner.Diagnostics(diags)
	for i, d := range diags {
		if d.Subject != nil && files[d.Subject.Filename] != nil {
			out[i].Snippet = snippet(d, files[d.Subject.Filename])
		}
	}
	return out
}

// snippet is the lines of a diagnostic; of a range that is not in the file nil.
func snippet(d *hcl.Diagnostic, file *hcl.File) *planner.Snippet {
	src, at := file.Bytes, *d.Subject
	around := at
	if d.Context != nil && d.Context.Filename == at.Filename {
		around = hcl.RangeOver(around, *d.Context)
	}
	if around.Start.Byte < 0 || at.Start.Byte > at.End.Byte || around.Start.Byte > around.End.Byte || around.End.Byte > len(src) {
		return nil
	}
	start := bytes.LastIndexByte(src[:around.Start.Byte], '\n') + 1
	end := len(src)
	if i := bytes.IndexByte(src[around.End.Byte:], '\n'); i >= 0 {
		end = around.End.Byte + i
	}
	if around.End.Byte > around.Start.Byte && src[around.End.Byte-1] == '\n' {
		end = around.End.Byte - 1
	}
	s := &planner.Snippet{Code: string(src[start:end]), StartLine: around.Start.Line,
		HighlightStartOffset: min(at.Start.Byte, end) - start, HighlightEndOffset: min(at.End.Byte, end) - start}
	if context := hcled.ContextString(file, at.Start.Byte); context != "" {
		s.Context = &context
	}
	return s
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
	shown, sources := make(hcl.Diagnostics, len(diags)), map[string]*hcl.File{}
	for i, d := range diags {
		one := *d
		if brief, ok := d.Extra.(planner.Brief); ok {
			one.Detail = string(brief)
		}
		one.Summary, one.Detail = plain(d.Summary), plain(one.Detail)
		shown[i] = &one
		if d.Subject == nil || files[d.Subject.Filename] == nil || sources[d.Subject.Filename] != nil {
			continue
		}
		file := *files[d.Subject.Filename]
		file.Bytes = plainSource(file.Bytes)
		sources[d.Subject.Filename] = &file
	}
	out := hcl.NewDiagnosticTextWriter(w, sources, uint(s.width()), s.Color)
	_ = out.WriteDiagnostics(shown)
}

// plainSource is plain for a file, in which all else stays in its place.
func plainSource(src []byte) []byte {
	out := src
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if moves(r) && !bytes.HasPrefix(src[i:], []byte("\r\n")) {
			if &out[0] == &src[0] {
				out = bytes.Clone(src)
			}
			for k := range n {
				out[i+k] = '?'
			}
		}
		i += n
	}
	return out
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
func ValidateJSON(w io.Writer, diags []planner.Diagnostic) error {
	out := validateJSON{FormatVersion: planner.FormatVersion, Diagnostics: diags}
	for _, d := range diags {
		if d.Severity == "error" {
			out.ErrorCount++
		} else {
			out.WarningCount++
		}
	}
	out.Valid = out.ErrorCount == 0
	return JSON(w, out)
}

// JSONLine writes one object of a stream, in a line.
func JSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// JSON writes one object, indented.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
