package view

import (
	"errors"
	"io"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// FormattedJSON is a file that fmt changes.
type FormattedJSON struct {
	File string `json:"file"`
	Diff string `json:"diff,omitempty"`
}

// FormatJSON writes the files that fmt changed, or would, and what is wrong with
// those that it can't read, which is err.
func FormatJSON(w io.Writer, files []FormattedJSON, err error) error {
	return JSON(w, struct {
		FormatVersion string               `json:"format_version"`
		Changed       []FormattedJSON      `json:"changed"`
		Diagnostics   []planner.Diagnostic `json:"diagnostics"`
	}{planner.FormatVersion, files, diagnosticsOf(err)})
}

// InitJSON is what init has come to.
type InitJSON struct {
	FormatVersion string               `json:"format_version"`
	Ready         bool                 `json:"ready"`
	Done          []string             `json:"done"` // for people
	State         string               `json:"state"`
	Encrypted     bool                 `json:"encrypted"`
	Diagnostics   []planner.Diagnostic `json:"diagnostics"`
}

// Write writes it, with the diagnostics of err where there is one.
func (d InitJSON) Write(w io.Writer, err error) error {
	d.FormatVersion = planner.FormatVersion
	if d.Done == nil {
		d.Done = []string{}
	}
	if err != nil {
		d.Diagnostics = diagnosticsOf(err)
	}
	return JSON(w, d)
}

// diagnosticsOf are those that err carries.
func diagnosticsOf(err error) []planner.Diagnostic {
	var d *DiagnosticsError
	if errors.As(err, &d) {
		return JSONDiagnostics(d.Diags, d.Files)
	}
	return []planner.Diagnostic{}
}

// UnlockedJSON writes what force-unlock has broken. asked is why the cluster could
// not be asked for its change lease.
func UnlockedJSON(w io.Writer, lock *statefile.LockInfo, change bool, asked error) error {
	doc := struct {
		FormatVersion string              `json:"format_version"`
		Lock          *statefile.LockInfo `json:"lock"`
		Change        bool                `json:"change"`
		Warning       string              `json:"warning,omitempty"`
	}{planner.FormatVersion, lock, change, ""}
	if asked != nil {
		doc.Warning = asked.Error()
	}
	return JSON(w, doc)
}
