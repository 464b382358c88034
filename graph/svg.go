package graph

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// Drawing says how a graph is drawn. The zero value draws its keys with %v.
type Drawing[K comparable] struct {
	Title string
	Label func(K) string // what stands in a box
	Note  func(K) string // smaller, below it; "": nothing
	Tone  func(K) Tone
	// Within tells the box that a vertex is drawn in: another vertex, or a key
	// that is none, which makes a frame. Frames are asked as well; asked on and
	// on, it has to end. Label, Note and Tone are asked for frames too.
	Within func(K) (K, bool)
}

// Tone is a colour, one that can be told from the others on light and on dark.
type Tone uint8

const (
	Plain Tone = iota
	Blue
	Green
	Amber
	Red
	Purple
	Teal
)

const (
	cell     = 8 // width of a character: a fixed-width font's, and a little more
	noteCell = 7
	longest  = 48 // characters of a label; the whole of it is the box's tooltip
	margin   = 20
	headOf   = 7 // length of an arrow's head
)

// The colours are for a light ground, and turned around where the reader's
// is dark. The ground is the drawing's own, so that neither is ever mixed.
const style = `
.ground{fill:#ffffff}
text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px;fill:#1f2328}
.note{font-size:11px;fill:#59636e}
rect{stroke-width:1.2}
.frame{stroke-dasharray:2 3}
.line{fill:none;stroke:#6e7781;stroke-width:1.2}
.soft{stroke-dasharray:5 4}
.tip{fill:#6e7781}
.ring{fill:#ffffff;stroke:#6e7781;stroke-width:1.2}
.t0{fill:#f6f8fa;stroke:#818b98}
.t1{fill:#ddf4ff;stroke:#0969da}
.t2{fill:#dafbe1;stroke:#1a7f37}
.t3{fill:#fff8c5;stroke:#9a6700}
.t4{fill:#ffebe9;stroke:#cf222e}
.t5{fill:#fbefff;stroke:#8250df}
.t6{fill:#e0f5f5;stroke:#1b7c83}
@media (prefers-color-scheme:dark){
.ground{fill:#0d1117}
text{fill:#f0f6fc}
.note{fill:#9198a1}
.line{stroke:#9198a1}
.tip{fill:#9198a1}
.ring{fill:#0d1117;stroke:#9198a1}
.t0{fill:#151b23;stroke:#656c76}
.t1{fill:#10243e;stroke:#4493f8}
.t2{fill:#0f2a19;stroke:#3fb950}
.t3{fill:#2b2310;stroke:#d29922}
.t4{fill:#341a1d;stroke:#f85149}
.t5{fill:#271f3a;stroke:#ab7df8}
.t6{fill:#0e2b2d;stroke:#39a8b0}
}
`

// SVG draws the graph as a picture that needs no other program: boxes in
// columns, arrows from what depends, on the right, to what it depends on; soft
// ones are dashed. Lines to the same box run together, and a line to a frame
// stands for one to each vertex in it; where it ends in a ring, for one to some of
// them, which no line can reach from the side. The error is a *CycleError.
func (g *Graph[K]) SVG(d Drawing[K]) (string, error) {
	root, err := g.layoutOf(&d)
	if err != nil {
		return "", err
	}
	low := 0
	if root.joined() {
		low = 34 // the legend
	}
	w, h := max(root.w, 300)+2*margin, root.h+low+2*margin
	some := root.some()
	if some {
		w = max(w, 520)
	}
	var p painter
	p.f("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", w, h, w, h)
	p.f("<title>%s</title>\n<style>%s</style>\n<rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n", escape(d.Title), style, w, h)
	if len(root.kids) == 0 {
		p.f("<text x=\"%d\" y=\"%d\">Nothing to draw.</text>\n", margin, margin+14)
	}
	p.boxes(root)
	p.lines(root)
	if low > 0 {
		y := h - margin
		p.f("<path class=\"line\" d=\"M%d %dh34\"/><text class=\"note\" x=\"%d\" y=\"%d\">needs</text>\n", margin, y-4, margin+42, y)
		p.f("<path class=\"line soft\" d=\"M%d %dh34\"/><text class=\"note\" x=\"%d\" y=\"%d\">only comes after</text>\n", margin+110, y-4, margin+152, y)
		if some {
			p.ring(margin+276, y-4)
			p.f("<text class=\"note\" x=\"%d\" y=\"%d\">some in it: see the tooltip</text>\n", margin+286, y)
		}
	}
	p.f("</svg>\n")
	return p.out.String(), nil
}

// layoutOf works out where everything is. Where frames would depend on each
// other in a circle, all boxes stand side by side instead.
func (g *Graph[K]) layoutOf(d *Drawing[K]) (*item, error) {
	if _, err := g.order(); err != nil {
		return nil, err
	}
	root := g.items(d, true)
	if !root.layout() {
		root = g.items(d, false)
		root.layout() // it has no circle: the order was found
	}
	root.absolute(margin, margin)
	return root, nil
}

type painter struct{ out strings.Builder }

func (p *painter) f(format string, args ...any) { fmt.Fprintf(&p.out, format, args...) }

// boxes paints what is in it, each box below what it holds.
func (p *painter) boxes(in *item) {
	for _, it := range in.kids {
		class := fmt.Sprintf("t%d", it.tone)
		if it.key < 0 {
			class += " frame"
		}
		p.f("<g><title>%s</title><rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"5\"/>", escape(it.full()), class, it.x, it.y, it.w, it.h)
		y := it.y + 20
		p.f("<text x=\"%d\" y=\"%d\">%s</text>", it.x+padding, y, escape(short(it.label)))
		if it.note != "" {
			p.f("<text class=\"note\" x=\"%d\" y=\"%d\">%s</text>", it.x+padding, y+noteTall, escape(short(it.note)))
		}
		p.f("</g>\n")
		p.boxes(it)
	}
}

// full is a box's whole text, with that of those which it stands in.
func (it *item) full() string {
	s := it.label
	if it.note != "" {
		s += ": " + it.note
	}
	for in := it.in; in != nil && in.in != nil; in = in.in {
		s += "\nin " + in.label
	}
	return s
}

// joined tells whether there is any line in it.
func (it *item) joined() bool {
	return len(it.buses) > 0 || slices.ContainsFunc(it.kids, (*item).joined)
}

// lines paints the lines among what c holds, a path for all that leads to one
// box.
func (p *painter) lines(c *item) {
	for _, b := range c.buses {
		var says []string
		for _, l := range b.says {
			says = append(says, l.from.path()+" -> "+l.to.path())
		}
		class := "line"
		if b.kind == Soft {
			class += " soft"
		}
		tipX, tipY := b.to.x+b.to.w, b.to.y+b.to.h/2
		p.f("<g><title>%s</title><path class=\"%s\" d=\"", escape(strings.Join(says, "\n")), class)
		first := b.box.col
		for _, s := range b.from {
			x, y := s.at.x, s.at.y+s.at.h/2
			p.f("M%d %d", x, y)
			if edge := c.at[s.box.col]; x != edge {
				p.f("H%d", edge)
			}
			p.into(c, b, s.box.col-1, c.at[s.box.col], y)
		}
		for i := range b.via {
			col := first + 1 + i
			y := c.top + b.via[i].y + passTall/2
			p.f("M%d %dH%d", c.at[col]+c.wide[col], y, c.at[col])
			p.into(c, b, col-1, c.at[col], y)
		}
		p.f("M%d %dH%d\"/>", c.at[first]+c.wide[first]+headOf+3, tipY, tipX+headOf-1)
		p.f("<path class=\"tip\" d=\"M%d %dl%d -4v8z\"/></g>\n", tipX, tipY, headOf)
		if b.some() {
			p.ring(tipX-4, tipY)
		}
		for _, s := range b.from {
			if b.someOf(s) {
				p.ring(s.at.x+4, s.at.y+s.at.h/2)
			}
		}
	}
	for _, it := range c.kids {
		p.lines(it)
	}
}

// ring paints the end of a line that means something within the box.
func (p *painter) ring(x, y int) {
	p.f("<circle class=\"ring\" cx=\"%d\" cy=\"%d\" r=\"3\"/>\n", x, y)
}

// some tells whether what the bus leads to is only a part of the box that it reaches.
func (b *bus) some() bool {
	return slices.ContainsFunc(b.says, func(l link) bool { return l.to != b.to })
}

// someOf tells the same of a box that it comes from.
func (b *bus) someOf(s source) bool {
	return slices.ContainsFunc(b.says, func(l link) bool { return l.from != s.at && l.a == s.box && port(l.a, l.from, false) == s.at })
}

// some tells whether any line in it means only a part of a box.
func (it *item) some() bool {
	return slices.ContainsFunc(it.buses, func(b *bus) bool { return b.some() || slices.ContainsFunc(b.from, b.someOf) }) ||
		slices.ContainsFunc(it.kids, (*item).some)
}

// into leads a line from x, y to what the bus has in a column.
func (p *painter) into(c *item, b *bus, col, x, y int) {
	toX, toY := c.at[col]+c.wide[col], b.to.y+b.to.h/2
	if i := col - b.box.col - 1; i >= 0 {
		toY = c.top + b.via[i].y + passTall/2
	} else {
		toX += headOf + 3
	}
	if y == toY {
		p.f("H%d", toX)
		return
	}
	mid := (x + toX) / 2
	p.f("C%d %d %d %d %d %d", mid, y, mid, toY, toX, toY)
}

// path is a box's text as a tooltip tells it: with what it stands in, but for
// what says that already.
func (it *item) path() string {
	s := it.label
	for in := it.in; in != nil && in.in != nil; in = in.in {
		s = in.label + " " + s
	}
	return s
}

// escape makes any text fit for XML; what XML can't hold becomes U+FFFD.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// cells is how many characters wide a short text is in a fixed-width font.
func cells(s string) int {
	n := 0
	for _, r := range short(s) {
		n += wide(r)
	}
	return n
}

// wide is 2 for characters that take the room of two, as those of East Asia.
func wide(r rune) int {
	switch {
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff,
		r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// short leaves out the middle of what is too long.
func short(s string) string {
	runes := []rune(s)
	if len(runes) <= longest {
		return s
	}
	return string(runes[:longest*2/3]) + "…" + string(runes[len(runes)-longest/3+1:])
}
