package view

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
)

// oneLine is how long a value may be to stand on one line. It is the same on
// every terminal: a plan's text is compared and pasted into reviews.
const oneLine = 72

// expanded is a value on many lines, which stand below the attribute that indent is the
// mark's column of: marks of elements four columns in, what ends it two.
type expanded struct {
	b      strings.Builder
	indent int
}

func (e *expanded) line(mark, text string) {
	e.b.WriteString("\n" + strings.Repeat(" ", e.indent+4) + mark + " " + text)
}

func (e *expanded) end(text string) string {
	e.b.WriteString("\n" + strings.Repeat(" ", e.indent+2) + text)
	return e.b.String()
}

// whole is a value that comes or goes as a whole; short is how it is written on
// one line.
func (s Style) whole(v cty.Value, mark string, indent int, short string) string {
	if v == cty.NilVal || v.IsMarked() || !v.IsKnown() || v.IsNull() {
		return short
	}
	if manyLines(v) {
		e := expanded{indent: indent}
		e.b.WriteString("<<-EOT")
		for _, l := range textLines(v) {
			e.line(" ", l)
		}
		return e.end("EOT")
	}
	lines := strings.Contains(short, `\`) && hasLines(v) // in one line, an end of line is written as an escape
	if !v.CanIterateElements() || utf8.RuneCountInString(short) <= oneLine && !lines || v.LengthInt() == 0 {
		return short
	}
	e := expanded{indent: indent}
	if named(v) {
		e.b.WriteString("{")
		values := byName(v)
		names := slices.Sorted(maps.Keys(values))
		width := widest(names)
		for _, k := range names {
			e.line(mark, pad(key(k), width)+" = "+s.whole(values[k], mark, indent+4, ctyText(values[k])))
		}
		return e.end("}")
	}
	e.b.WriteString("[")
	for _, one := range v.AsValueSlice() {
		e.line(mark, s.whole(one, mark, indent+4, ctyText(one))+",")
	}
	return e.end("]")
}

// differ is what becomes of a value: by line, by element or by key where it has
// such, else the one and the other. hide names elements (path and key) that are
// sensitive.
func (s Style) differ(before, after cty.Value, indent int, path string, hide map[string]bool, text func(cty.Value) string) string {
	switch {
	case manyLines(before) && plainText(after) || plainText(before) && manyLines(after):
		return s.differLines(before, after, indent)
	case iterable(before) && iterable(after) && named(before) && named(after):
		return s.differKeys(before, after, indent, path, hide)
	case iterable(before) && iterable(after) && !named(before) && !named(after):
		return s.differElements(before, after, indent)
	}
	return text(before) + " -> " + text(after)
}

func (s Style) differLines(before, after cty.Value, indent int) string {
	e := expanded{indent: indent}
	e.b.WriteString("<<-EOT")
	edits(s, &e, textLines(before), textLines(after), "line", func(a, b string) bool { return a == b }, func(l string, _ string) string { return l }, nil)
	return e.end("EOT")
}

func (s Style) differElements(before, after cty.Value, indent int) string {
	e := expanded{indent: indent}
	e.b.WriteString("[")
	edits(s, &e, before.AsValueSlice(), after.AsValueSlice(), "element", equal,
		func(v cty.Value, mark string) string {
			if mark == " " {
				return ctyText(v) + ","
			}
			return s.whole(v, mark, indent+4, ctyText(v)) + ","
		},
		func(a, b cty.Value) (string, bool) { // an element of parts that changed
			if !iterable(a) || !iterable(b) || named(a) != named(b) {
				return "", false
			}
			return s.differ(a, b, indent+4, "", nil, ctyText) + ",", true
		})
	return e.end("]")
}

func (s Style) differKeys(before, after cty.Value, indent int, path string, hide map[string]bool) string {
	e := expanded{indent: indent}
	e.b.WriteString("{")
	was, is := byName(before), byName(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var names []string
	for k := range all {
		if a, b := was[k], is[k]; (!empty(a) || !empty(b)) && (hide[path+"["+strconv.Quote(k)+"]"] || !equal(a, b)) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	width := widest(names)
	for _, k := range names {
		a, inBefore := was[k]
		b, inAfter := is[k]
		inBefore, inAfter = inBefore && !isNull(a), inAfter && !isNull(b)
		hidden := hide[path+"["+strconv.Quote(k)+"]"]
		var mark, text string
		switch {
		case !inBefore:
			mark = s.Green("+")
			text = s.whole(b, mark, indent+4, ctyText(b))
		case !inAfter:
			mark = s.Red("-")
			text = s.whole(a, mark, indent+4, ctyText(a)) + " -> null"
		case hidden || a.IsMarked() || b.IsMarked():
			mark, text, hidden = s.Yellow("~"), sensitiveText, false
		default:
			mark = s.Yellow("~")
			text = s.differ(a, b, indent+4, "", nil, ctyText)
		}
		if hidden {
			if text = sensitiveText; !inAfter {
				text += " -> null"
			}
		}
		e.line(mark, pad(key(k), width)+" = "+text)
	}
	left := 0
	for k := range is {
		if !empty(is[k]) && !slices.Contains(names, k) {
			left++
		}
	}
	if left > 0 {
		what := "unchanged element"
		if after.Type().IsObjectType() {
			what = "unchanged attribute"
		}
		e.line(" ", s.Dim("# ("+count(left, what)+" hidden)"))
	}
	return e.end("}")
}

// step is a line of an edit: an element that goes (was), comes (is), or stays
// (both); of one that becomes another, what becomes of it.
type step[T any] struct {
	mark    byte // ' ', '-', '+' or '~'
	was, is T
	inside  string
}

// edits writes what a list lost, kept and got, in order; of what it kept only
// the neighbours of what changed. Where as many went as came at one place, inside
// tells what became of each, if it can.
func edits[T any](s Style, e *expanded, before, after []T, what string, same func(a, b T) bool, text func(v T, mark string) string, inside func(a, b T) (string, bool)) {
	steps := paired(script(before, after, same), inside)
	hidden := 0
	tell := func() {
		if hidden > 0 {
			e.line(" ", s.Dim("# ("+count(hidden, "unchanged "+what)+" hidden)"))
		}
		hidden = 0
	}
	for i, st := range steps {
		near := i > 0 && steps[i-1].mark != ' ' || i+1 < len(steps) && steps[i+1].mark != ' '
		if st.mark == ' ' && !near {
			hidden++
			continue
		}
		tell()
		switch st.mark {
		case '-':
			e.line(s.Red("-"), text(st.was, s.Red("-")))
		case '+':
			e.line(s.Green("+"), text(st.is, s.Green("+")))
		case '~':
			e.line(s.Yellow("~"), st.inside)
		default:
			e.line(" ", text(st.is, " "))
		}
	}
	tell()
}

// most bounds the work of finding the shortest edit; what is larger is told as
// all gone and all come.
const most = 1 << 20

// script is a shortest edit from before to after.
func script[T any](before, after []T, same func(a, b T) bool) []step[T] {
	var out []step[T]
	keep := func(v T) { out = append(out, step[T]{mark: ' ', is: v}) }
	start := 0
	for start < len(before) && start < len(after) && same(before[start], after[start]) {
		keep(after[start])
		start++
	}
	a, b := before[start:], after[start:]
	end := 0
	for end < len(a) && end < len(b) && same(a[len(a)-1-end], b[len(b)-1-end]) {
		end++
	}
	tail := b[len(b)-end:]
	a, b = a[:len(a)-end], b[:len(b)-end]
	// common[i][j]: how much of a[i:] and b[j:] is common, in one slice.
	wide := len(b) + 1
	common := make([]int, 1)
	if len(a)*len(b) <= most {
		common = make([]int, (len(a)+1)*wide)
		for i := len(a) - 1; i >= 0; i-- {
			for j := len(b) - 1; j >= 0; j-- {
				if same(a[i], b[j]) {
					common[i*wide+j] = common[(i+1)*wide+j+1] + 1
				} else {
					common[i*wide+j] = max(common[(i+1)*wide+j], common[i*wide+j+1])
				}
			}
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) && len(common) > 1 {
		switch {
		case same(a[i], b[j]):
			keep(b[j])
			i, j = i+1, j+1
		case common[(i+1)*wide+j] >= common[i*wide+j+1]:
			out = append(out, step[T]{mark: '-', was: a[i]})
			i++
		default:
			out = append(out, step[T]{mark: '+', is: b[j]})
			j++
		}
	}
	for ; i < len(a); i++ {
		out = append(out, step[T]{mark: '-', was: a[i]})
	}
	for ; j < len(b); j++ {
		out = append(out, step[T]{mark: '+', is: b[j]})
	}
	for _, v := range tail {
		keep(v)
	}
	return out
}

// paired has elements that went and came at one place be changes of elements,
// where there are as many of both and inside can tell each.
func paired[T any](steps []step[T], inside func(a, b T) (string, bool)) []step[T] {
	if inside == nil {
		return steps
	}
	var out []step[T]
	for i := 0; i < len(steps); {
		gone, come := i, i
		for gone < len(steps) && steps[gone].mark == '-' {
			gone++
		}
		for come = gone; come < len(steps) && steps[come].mark == '+'; {
			come++
		}
		if n := gone - i; n > 0 && come-gone == n {
			var pairs []step[T]
			for k := range n {
				if text, ok := inside(steps[i+k].was, steps[gone+k].is); ok {
					pairs = append(pairs, step[T]{mark: '~', inside: text})
				}
			}
			if len(pairs) == n {
				out, i = append(out, pairs...), come
				continue
			}
		}
		next := max(come, i+1)
		out, i = append(out, steps[i:next]...), next
	}
	return out
}

func equal(a, b cty.Value) bool {
	if a == cty.NilVal || b == cty.NilVal {
		return empty(a) && empty(b)
	}
	a, _ = a.UnmarkDeep()
	b, _ = b.UnmarkDeep()
	return a.RawEquals(b) || empty(a) && empty(b)
}

func isNull(v cty.Value) bool { return !v.IsMarked() && v.IsKnown() && v.IsNull() }

// named tells whether v's elements go by names.
func named(v cty.Value) bool { return v.Type().IsMapType() || v.Type().IsObjectType() }

func byName(v cty.Value) map[string]cty.Value {
	out := map[string]cty.Value{}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		out[k.AsString()] = e
	}
	return out
}

// plainText tells whether v is a text that a terminal shows as it is.
func plainText(v cty.Value) bool {
	return v != cty.NilVal && !v.IsMarked() && v.IsKnown() && !v.IsNull() && v.Type() == cty.String && plain(v.AsString()) == v.AsString()
}

func manyLines(v cty.Value) bool { return plainText(v) && strings.Contains(v.AsString(), "\n") }

func textLines(v cty.Value) []string {
	return strings.Split(strings.TrimSuffix(v.AsString(), "\n"), "\n")
}

// hasLines tells whether a text somewhere in v has several lines.
func hasLines(v cty.Value) bool {
	found := false
	_ = cty.Walk(v, func(_ cty.Path, e cty.Value) (bool, error) {
		found = found || manyLines(e)
		return !e.IsMarked(), nil
	})
	return found
}

func widest(names []string) int {
	width := 0
	for _, n := range names {
		width = max(width, utf8.RuneCountInString(key(n)))
	}
	return width
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
