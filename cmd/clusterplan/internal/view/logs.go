package view

import (
	"bytes"
	"io"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
)

// LogLines writes each line of a program's log as a JSON object.
type LogLines struct {
	w    io.Writer
	from logLineJSON
	rest []byte // a line that has not ended yet
}

// logLineJSON is a line of `logs --json`.
type logLineJSON struct {
	FormatVersion string       `json:"format_version"`
	Address       addr.Address `json:"address"` // the resource's
	Node          string       `json:"node"`
	Text          string       `json:"text"`
}

// longestLogLine is how many bytes of a line are kept until its end is there: a longer
// one is several.
const longestLogLine = 64 << 10

// NewLogLines is for what a resource prints on a node.
func NewLogLines(w io.Writer, resource addr.Address, node string) *LogLines {
	return &LogLines{w: w, from: logLineJSON{FormatVersion: planner.FormatVersion, Address: resource, Node: node}}
}

// Write takes a part of the log, which may end anywhere in a line.
func (l *LogLines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		end := i + 1
		if i < 0 || i > longestLogLine {
			if len(l.rest) <= longestLogLine {
				return len(p), nil
			}
			i, end = longestLogLine, longestLogLine
		}
		if err := l.line(l.rest[:i]); err != nil {
			return 0, err
		}
		l.rest = append(l.rest[:0], l.rest[end:]...)
	}
}

// Close writes what is left of a line without its end.
func (l *LogLines) Close() error {
	if len(l.rest) == 0 {
		return nil
	}
	return l.line(l.rest)
}

func (l *LogLines) line(text []byte) error {
	l.from.Text = string(text)
	return JSONLine(l.w, l.from)
}
