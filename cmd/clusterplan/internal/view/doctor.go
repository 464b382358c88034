package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
)

// Examination is what doctor found, as doctor --json prints it.
type Examination struct {
	FormatVersion string              `json:"format_version"`
	Healthy       bool                `json:"healthy"` // nothing fails
	Findings      []providers.Finding `json:"findings"`
	Summary       ExaminationSummary  `json:"summary"`
}

// ExaminationSummary counts findings by level.
type ExaminationSummary struct {
	OK   int `json:"ok"`
	Warn int `json:"warn"`
	Fail int `json:"fail"`
}

// NewExamination counts.
func NewExamination(found []providers.Finding) *Examination {
	e := &Examination{FormatVersion: planner.FormatVersion, Findings: found}
	for i := range found {
		if found[i].Objects == nil {
			found[i].Objects = []addr.Address{}
		}
		switch found[i].Level {
		case providers.LevelOK:
			e.Summary.OK++
		case providers.LevelWarn:
			e.Summary.Warn++
		default:
			e.Summary.Fail++
		}
	}
	e.Healthy = e.Summary.Fail == 0
	return e
}

// Unready are what hosts lack for an apply, which is refused for it.
func Unready(lacks []providers.Finding) hcl.Diagnostics {
	what := "1 check fails"
	if n := len(lacks); n > 1 {
		what = fmt.Sprintf("%d checks fail", n)
	}
	diags := hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Not all hosts are ready, and nothing was touched",
		Detail: what + ", told below. Mend what they say and apply again. A node that can wait is left out by --exclude with its address. What is well, and what only warns: clusterplan doctor."}}
	for _, f := range lacks {
		var names []string
		for _, o := range f.Objects {
			names = append(names, o.String())
		}
		detail := f.Found
		if f.Advice != "" {
			detail += ". " + f.Advice
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("%s (%s): %s", f.Where, strings.Join(names, ", "), f.Check), Detail: detail + "."})
	}
	return diags
}

// Examination writes a table, and below each line that is not well what to do.
func (s Style) Examination(w io.Writer, e *Examination) error {
	rows := [][]string{s.head("WHERE", "CHECK", "", "FOUND")}
	where := ""
	for _, f := range e.Findings {
		level := s.Green(f.Level)
		switch f.Level {
		case providers.LevelWarn:
			level = s.Yellow(f.Level)
		case providers.LevelFail:
			level = s.Red(f.Level)
		}
		name := Tame(f.Where)
		if name == where {
			name = ""
		} else {
			where = name
		}
		rows = append(rows, []string{name, f.Check, level, Tame(f.Found)})
		if f.Advice != "" {
			rows = append(rows, []string{"", "", "", "-> " + Tame(f.Advice)})
		}
	}
	var b strings.Builder
	if err := table(&b, rows); err != nil {
		return err
	}
	switch n := e.Summary; {
	case n.Fail > 0:
		fmt.Fprintf(&b, "\n%s %d of %d checks fail, %d warn.\n", s.Red("Not ready."), n.Fail, len(e.Findings), n.Warn)
	case n.Warn > 0:
		fmt.Fprintf(&b, "\n%s %d of %d checks warn.\n", s.Green("Ready."), n.Warn, len(e.Findings))
	default:
		fmt.Fprintf(&b, "\n%s All %d checks are fine.\n", s.Green("Ready."), len(e.Findings))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
