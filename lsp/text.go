package lsp

import (
	"bytes"
	"sort"
	"strings"
	"time"
	"unicode/utf8"
)

// encoding is what a column counts: UTF-16 code units, as the protocol has it
// where nothing else was agreed on, or bytes.
type encoding string

const (
	utf16 encoding = "utf-16"
	utf8s encoding = "utf-8"
)

// document is a text with an index of its lines. It doesn't change.
type document struct {
	text    []byte
	lines   []int // where each begins
	version int32
	outline *block    // of the text
	stamp   time.Time // of a file on disk: when it changed last
}

func newDocument(text []byte, version int32) *document {
	d := &document{text: text, version: version, lines: append(make([]int, 0, 1+len(text)/24), 0)}
	for at := 0; ; {
		i := bytes.IndexAny(text[at:], "\n\r")
		if i < 0 {
			break
		}
		at += i + 1
		if text[at-1] == '\r' && at < len(text) && text[at] == '\n' {
			at++
		}
		d.lines = append(d.lines, at)
	}
	return d
}

// lineEnd is where line ends, without what ends it.
func (d *document) lineEnd(line int) int {
	end := len(d.text)
	if line+1 < len(d.lines) {
		end = d.lines[line+1]
		for end > d.lines[line] && (d.text[end-1] == '\n' || d.text[end-1] == '\r') {
			end--
		}
	}
	return end
}

// offset is the byte that a position means; past a line's end it is its end,
// past the text the text's, and within a character that character's.
func (d *document) offset(p position, e encoding) int {
	if int64(p.Line) >= int64(len(d.lines)) {
		return len(d.text)
	}
	at, end := d.lines[p.Line], d.lineEnd(int(p.Line))
	if e == utf8s {
		return d.whole(min(at+int(min(p.Character, 1<<30)), end))
	}
	for units := int64(p.Character); units > 0 && at < end; {
		r, n := utf8.DecodeRune(d.text[at:end])
		if units--; r >= 0x10000 {
			if units--; units < 0 {
				break
			}
		}
		at += n
	}
	return at
}

// whole is where the character begins that offset lies in.
func (d *document) whole(offset int) int {
	for i := 1; i < utf8.UTFMax && i <= offset && offset < len(d.text); i++ {
		if utf8.RuneStart(d.text[offset-i]) {
			if _, n := utf8.DecodeRune(d.text[offset-i:]); n > i {
				return offset - i
			}
			break
		}
	}
	return offset
}

// position is offset's inverse.
func (d *document) position(offset int, e encoding) position {
	offset = d.whole(max(0, min(offset, len(d.text))))
	line := sort.SearchInts(d.lines, offset+1) - 1
	start := d.lines[line]
	if e == utf8s {
		return position{uint32(line), uint32(offset - start)}
	}
	units := 0
	for at := start; at < offset; {
		r, n := utf8.DecodeRune(d.text[at:])
		if units++; r >= 0x10000 {
			units++
		}
		at += n
	}
	return position{uint32(line), uint32(units)}
}

func (d *document) textRange(start, end int, e encoding) textRange {
	return textRange{d.position(start, e), d.position(max(start, end), e)}
}

// change is the document after an editor's changes, one after the other.
func (d *document) change(changes []contentChange, version int32, e encoding) *document {
	for _, c := range changes {
		if c.Range == nil {
			d = newDocument([]byte(c.Text), version)
			continue
		}
		start, end := d.offset(c.Range.Start, e), d.offset(c.Range.End, e)
		if end < start {
			start, end = end, start
		}
		text := make([]byte, 0, len(d.text)-(end-start)+len(c.Text))
		text = append(append(append(text, d.text[:start]...), c.Text...), d.text[end:]...)
		d = newDocument(text, version)
	}
	return &document{text: d.text, lines: d.lines, version: version}
}

// edits turn before into after: of texts with as many lines, one for each run of
// lines that differ, so that the editor's marks stay where they are.
func edits(before *document, after []byte, e encoding) []textEdit {
	if bytes.Equal(before.text, after) {
		return []textEdit{}
	}
	b, a := lines(before.text), lines(after)
	if len(a) != len(b) {
		head := 0
		for head < len(a) && head < len(b) && a[head] == b[head] {
			head++
		}
		tail := 0
		for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
			tail++
		}
		return []textEdit{before.replaceLines(b, head, len(b)-tail, strings.Join(a[head:len(a)-tail], ""), e)}
	}
	var out []textEdit
	for i := 0; i < len(b); i++ {
		from := i
		for i < len(b) && a[i] != b[i] {
			i++
		}
		if from < i {
			out = append(out, before.replaceLines(b, from, i, strings.Join(a[from:i], ""), e))
		}
	}
	return out
}

func lines(text []byte) []string { return strings.SplitAfter(string(text), "\n") }

func (d *document) replaceLines(all []string, from, to int, text string, e encoding) textEdit {
	start := 0
	for _, l := range all[:from] {
		start += len(l)
	}
	end := start
	for _, l := range all[from:to] {
		end += len(l)
	}
	return textEdit{d.textRange(start, end, e), text}
}
