package view

import (
	"io"
	"strings"
	"unicode/utf8"
)

// table aligns columns with two blanks between them. Cells may be coloured:
// their escapes count for nothing.
func table(w io.Writer, rows [][]string) error {
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], visible(c))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString(c)
			if i < len(r)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-visible(c)+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func visible(s string) int {
	n := 0
	for {
		before, after, esc := strings.Cut(s, "\x1b[")
		n += utf8.RuneCountInString(before)
		if !esc {
			return n
		}
		_, s, _ = strings.Cut(after, "m")
	}
}
