// Package view is what people and programs read: texts for a terminal, JSON,
// and the words of errors. It decides nothing and changes nothing.
package view

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Style says how text is written. The zero value is plain text, 78 columns.
type Style struct {
	Color bool
	Width int
}

// StyleOf is the style for w: colour on a terminal only, and not where the
// environment has NO_COLOR or noColor says so.
func StyleOf(w io.Writer, noColor bool) Style {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Style{}
	}
	s := Style{Color: !noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		s.Width = width
	}
	return s
}

// Terminal tells whether r is a terminal, so that somebody can answer there.
func Terminal(r any) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (s Style) width() int {
	if s.Width <= 0 {
		return 78
	}
	return s.Width
}

func (s Style) paint(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s Style) Bold(t string) string   { return s.paint("1", t) }
func (s Style) Dim(t string) string    { return s.paint("2", t) }
func (s Style) Red(t string) string    { return s.paint("31", t) }
func (s Style) Green(t string) string  { return s.paint("32", t) }
func (s Style) Yellow(t string) string { return s.paint("33", t) }
