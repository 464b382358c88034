package view

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/planner"
)

// shownAttribute is an attribute as a reviewer reads it: the elements of a list
// or map that differ, each of which the plan tells on its own, stand together.
type shownAttribute struct {
	path          string
	before, after cty.Value
	hide          map[string]bool // sensitive keys of a map
	sensitive     bool
	notes         []string
}

// attributes shows what differs, and how much does not; of an object that is to
// be made, or to go, what is not as it is by default.
func (s Style) attributes(b *bytes.Buffer, c *planner.Change, d *defaults) {
	d.changes = c.Differing(d.changes[:0])
	d.list = together(d.list[:0], c, d.changes)
	list := d.list
	if c.Action() == "delete" {
		list = going(c)
	}
	shown := list[:0]
	width, asDefault := 0, 0
	for _, a := range list {
		value := a.after
		if c.Action() == "delete" {
			value = a.before
		}
		if c.Action() != "update" && c.Action() != "replace" && c.Action() != "read" && !a.sensitive && d.is(c, a.path, value) {
			asDefault++
			continue
		}
		shown = append(shown, a)
		width = max(width, len(a.path))
	}
	for _, a := range shown {
		mark, text := s.attribute(c, a)
		notes := ""
		if len(a.notes) > 0 {
			notes = "  " + s.Dim("# "+strings.Join(a.notes, ", "))
			if slices.Contains(a.notes, forces) {
				notes = "  " + s.Red("# "+strings.Join(a.notes, ", "))
			}
		}
		// Notes stand where the eye is, at the end of the first line.
		first, rest, more := strings.Cut(text, "\n")
		// Of thousands of objects Fprintf would make a copy of each of these.
		for _, word := range [...]string{"      ", mark, " ", a.path} {
			b.WriteString(word)
		}
		for range width - utf8.RuneCountInString(a.path) {
			b.WriteByte(' ')
		}
		for _, word := range [...]string{" = ", first, notes, "\n"} {
			b.WriteString(word)
		}
		if more {
			b.WriteString(rest + "\n")
		}
	}
	switch hidden := unchanged(c); {
	case asDefault > 0:
		fmt.Fprintf(b, "        %s\n", s.Dim("# ("+count(asDefault, "attribute")+" at default hidden)"))
	case hidden > 0 && len(shown) > 0:
		fmt.Fprintf(b, "        %s\n", s.Dim("# ("+count(hidden, "unchanged attribute")+" hidden)"))
	}
}

// forces is why an object can't stay.
const forces = "forces replacement"

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// together brings the elements of one list or map together where the whole of
// it is known. It appends them to out.
func together(out []shownAttribute, c *planner.Change, changes []planner.AttributeChange) []shownAttribute {
	for i := range changes {
		a := &changes[i]
		root, _, element := strings.Cut(a.Path, "[")
		var before, after cty.Value
		if element {
			before, after = at(c.Before, root), at(c.After, root)
		}
		if !iterable(before) || !iterable(after) {
			out = append(out, shownAttribute{path: a.Path, before: a.Before, after: a.After, sensitive: a.Sensitive, notes: attributeNotes(c, *a)})
			continue
		}
		if len(out) == 0 || out[len(out)-1].path != root {
			out = append(out, shownAttribute{path: root, before: before, after: after, hide: map[string]bool{}, notes: attributeNotes(c, *a)})
		}
		last := &out[len(out)-1]
		if a.Sensitive {
			last.hide[a.Path] = true
			last.sensitive = last.sensitive || !before.Type().IsMapType() && !before.Type().IsObjectType()
		}
		for _, n := range attributeNotes(c, *a) {
			if !slices.Contains(last.notes, n) {
				last.notes = append(last.notes, n)
			}
		}
	}
	return out
}

// going are the attributes of what is deleted.
func going(c *planner.Change) []shownAttribute {
	var out []shownAttribute
	leaves(c.Before, "", func(path string, v cty.Value) {
		out = append(out, shownAttribute{path: path, before: v, after: cty.NilVal, sensitive: v.IsMarked()})
	})
	return out
}

func attributeNotes(c *planner.Change, a planner.AttributeChange) []string {
	var out []string
	if c.Action() == "create" || c.Action() == "delete" {
		return nil
	}
	root, _, _ := strings.Cut(a.Path, "[")
	if slices.Contains(c.ReplacePaths, a.Path) || slices.Contains(c.ReplacePaths, root) {
		out = append(out, forces)
	} else if a.Impact != "" && a.Impact != "none" && c.Action() != "replace" {
		out = append(out, strings.ReplaceAll(string(a.Impact), "_", " "))
	}
	if a.Cause == planner.CauseDrift {
		out = append(out, "drift")
	}
	return out
}

// attribute is the mark and the text after the equals sign.
func (s Style) attribute(c *planner.Change, a shownAttribute) (mark, text string) {
	none := func(v cty.Value) bool { return v == cty.NilVal || !v.IsMarked() && v.IsKnown() && v.IsNull() }
	const indent = 6
	switch {
	case c.Action() == "delete" || none(a.after) && !none(a.before):
		mark = s.Red("-")
		if a.sensitive {
			return mark, sensitiveText + " -> null"
		}
		return mark, s.whole(a.before, mark, indent, attributeText(c, a.path, a.before)) + " -> null"
	case c.Action() == "create" || none(a.before):
		mark = s.Green("+")
		if a.sensitive {
			return mark, sensitiveText
		}
		return mark, s.whole(a.after, mark, indent, attributeText(c, a.path, a.after))
	}
	mark = s.Yellow("~")
	if a.sensitive {
		return mark, sensitiveText
	}
	return mark, s.differ(a.before, a.after, indent, a.path, a.hide,
		func(v cty.Value) string { return attributeText(c, a.path, v) })
}

// unchanged counts the attributes that are set and stay as they are.
func unchanged(c *planner.Change) int {
	if c.Action() != "update" && c.Action() != "replace" && c.Action() != "read" {
		return 0
	}
	changed := map[string]bool{}
	for _, a := range c.Attributes {
		root, _, _ := strings.Cut(a.Path, "[")
		changed[root] = true
	}
	n := 0
	leaves(c.After, "", func(path string, _ cty.Value) {
		if !changed[path] {
			n++
		}
	})
	return n
}

// leaves visits the attributes of an object that are set, those of its blocks
// among them, in the order of their names.
func leaves(v cty.Value, path string, visit func(path string, v cty.Value)) {
	if v == cty.NilVal || v.IsMarked() || !v.IsKnown() || v.IsNull() || !v.Type().IsObjectType() {
		if path != "" && !empty(v) {
			visit(path, v)
		}
		return
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		name := k.AsString()
		if path != "" {
			name = path + "." + name
		}
		leaves(e, name, visit)
	}
}

// empty: nothing can be written in several ways.
func empty(v cty.Value) bool {
	if v == cty.NilVal {
		return true
	}
	if v.IsMarked() || !v.IsKnown() {
		return false
	}
	if v.IsNull() {
		return true
	}
	return v.Type() == cty.String && v.AsString() == "" || iterable(v) && v.LengthInt() == 0
}

// at is the value of an attribute, `restart.delay`, within an object.
func at(v cty.Value, path string) cty.Value {
	for _, name := range strings.Split(path, ".") {
		if v == cty.NilVal || v.IsMarked() || !v.IsKnown() || v.IsNull() || !v.Type().IsObjectType() || !v.Type().HasAttribute(name) {
			return cty.NilVal
		}
		v = v.GetAttr(name)
	}
	return v
}

// iterable tells whether v's elements can be looked at one by one.
func iterable(v cty.Value) bool {
	return v != cty.NilVal && !v.IsMarked() && v.IsKnown() && !v.IsNull() && v.CanIterateElements()
}
