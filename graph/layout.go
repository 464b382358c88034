package graph

// A drawing has columns: what depends on nothing stands in the first, on the
// left, and everything else to the right of what it depends on. A box may hold
// boxes, which are laid out among themselves in the same way. All numbers are
// whole pixels, so that every machine comes to the same drawing.

// item is a box: a vertex, a frame around some, or both.
type item struct {
	key         int32 // of the vertex; -1: a frame only
	label, note string
	tone        Tone
	in          *item // nil: the drawing as a whole
	depth       int
	kids        []*item
	links       []link // among the kids

	col        int // of in's columns
	x, y, w, h int // y within in while it is laid out, then of the drawing

	slot  *slot // its place in a column of in
	cols  [][]*slot
	seams [][]*joint // between a column and the next
	buses []*bus
	at    []int // where each column begins
	wide  []int // and how wide it is
	top   int   // where what is within begins
}

// link is an edge between two kids of a box, a and b, whose ends are in them.
type link struct {
	a, b     *item // a depends on b
	from, to *item
	kind     Kind
}

// slot is what takes a place in a column: a box, or lines that pass.
type slot struct {
	it          *item // nil: lines pass
	ord, y, h   int
	left, right []*joint
}

// joint is a line between neighbouring columns: a's is right of b's.
type joint struct {
	a, b   *slot
	ay, by int // where it ends within them
	weight int // how much it wants to be straight
}

// bus is all that leads to one box. Lines that lead to the same run together
// as soon as they can, which takes no meaning from them and saves most of them.
type bus struct {
	to   *item // the box that it reaches, in or around what is meant
	box  *item // the kid which that is in
	kind Kind
	via  []*slot // in the columns from box's to the farthest that it comes from
	from []source
	says []link // what it means

	joined map[*item]bool // of from
}

// source is a box that a bus comes from, and the kid which that is in.
type source struct{ at, box *item }

const (
	padding   = 12
	headTall  = 26 // a label
	noteTall  = 15
	passTall  = 2  // lines that pass
	betweenIt = 14 // two boxes
	besideIt  = 9  // a box and a line
	between   = 7  // two lines
	seamWide  = 44
)

// items makes the boxes; nested false leaves all of them side by side.
func (g *Graph[K]) items(d *Drawing[K], nested bool) *item {
	root := &item{key: -1}
	at, frames := make([]*item, len(g.keys)), map[K]*item{}
	var box func(k K) *item
	box = func(k K) *item {
		i, vertex := g.find(k)
		switch {
		case vertex && at[i] != nil:
			return at[i]
		case !vertex && frames[k] != nil:
			return frames[k]
		}
		it := &item{key: -1, label: text(k, d.Label), in: root}
		if d.Note != nil {
			it.note = d.Note(k)
		}
		if d.Tone != nil {
			it.tone = d.Tone(k)
		}
		if vertex {
			it.key, at[i] = i, it
		} else {
			frames[k] = it
		}
		if nested && d.Within != nil {
			if p, ok := d.Within(k); ok {
				it.in = box(p)
			}
		}
		it.depth = it.in.depth + 1
		it.in.kids = append(it.in.kids, it)
		return it
	}
	for _, k := range g.keys {
		box(k)
	}
	s := g.sort()
	for i := range int32(len(g.keys)) {
		for _, to := range s.of(i) {
			lift(at[i], at[to], g.edges[pair(i, to)])
		}
	}
	return root
}

// lift gives an edge to the box in which its ends come together. One between a
// box and what it holds is not drawn: it is seen.
func lift(from, to *item, kind Kind) {
	a, b := from, to
	for a.depth > b.depth {
		a = a.in
	}
	for b.depth > a.depth {
		b = b.in
	}
	if a == b {
		return
	}
	for a.in != b.in {
		a, b = a.in, b.in
	}
	a.in.links = append(a.in.links, link{a, b, from, to, kind})
}

// layout works out c and all in it; false: the boxes depend on each other in a
// circle, though what they hold does not.
func (c *item) layout() bool {
	for _, kid := range c.kids {
		if !kid.layout() {
			return false
		}
	}
	if len(c.kids) == 0 {
		c.w, c.h = c.head()
		return true
	}
	c.links = concentrate(c.links, func(l *link) (*item, *item, **item) { return l.from, l.b, &l.to })
	c.links = concentrate(c.links, func(l *link) (*item, *item, **item) { return l.to, l.a, &l.from })
	if !c.rank() {
		return false
	}
	c.connect()
	c.untangle()
	c.place()
	return true
}

// head is how large the texts of a box are.
func (c *item) head() (w, h int) {
	w, h = 2*padding+cell*cells(c.label), headTall+4
	if c.note != "" {
		w, h = max(w, 2*padding+noteCell*cells(c.note)), h+noteTall
	}
	return w, h
}

// concentrate makes one link of those from one box to all that a frame holds.
// The side tells which end stays, and which box the other ends are in.
func concentrate(links []link, side func(*link) (fixed, box *item, end **item)) []link {
	type bundle struct {
		fixed, box *item
		kind       Kind
	}
	sets, first := map[bundle]map[*item]bool{}, map[bundle]link{}
	var order []bundle
	for _, l := range links {
		fixed, box, end := side(&l)
		k := bundle{fixed, box, l.kind}
		if sets[k] == nil {
			sets[k], first[k] = map[*item]bool{}, l
			order = append(order, k)
		}
		sets[k][*end] = true
	}
	var out []link
	for _, k := range order {
		for _, it := range ends(k.box, sets[k], false, nil) {
			l := first[k]
			_, _, end := side(&l)
			*end = it
			out = append(out, l)
		}
	}
	return out
}

// ends are the boxes that stand for a set: a frame for the vertices in it, a
// vertex for itself alone. told: a frame around it stands for it.
func ends(it *item, set map[*item]bool, told bool, out []*item) []*item {
	if !told && covered(it, set) {
		out = append(out, it)
		told = true
	}
	for _, kid := range it.kids {
		out = ends(kid, set, told && it.key < 0, out)
	}
	return out
}

func covered(it *item, set map[*item]bool) bool {
	if it.key >= 0 {
		return set[it]
	}
	for _, kid := range it.kids {
		if !covered(kid, set) {
			return false
		}
	}
	return true
}

// rank gives every kid its column: one more than the last of those that it
// depends on. Columns that grow too high are split; that keeps the order.
func (c *item) rank() bool {
	waits, users := map[*item]int{}, map[*item][]*item{}
	for _, l := range c.links {
		waits[l.a]++
		users[l.b] = append(users[l.b], l.a)
	}
	var ready []*item
	for _, kid := range c.kids {
		if waits[kid] == 0 {
			ready = append(ready, kid)
		}
	}
	done, last := 0, 0
	for ; len(ready) > done; done++ {
		b := ready[done]
		for _, a := range users[b] {
			a.col = max(a.col, b.col+1)
			last = max(last, a.col)
			if waits[a]--; waits[a] == 0 {
				ready = append(ready, a)
			}
		}
	}
	if done < len(c.kids) {
		return false
	}
	ranks, area := make([][]*item, last+1), 0
	for _, kid := range c.kids {
		ranks[kid.col] = append(ranks[kid.col], kid)
		area += (kid.w + seamWide) * (kid.h + betweenIt)
	}
	most := 560
	if c.in != nil {
		most = 1200 // what stands in an inner column can't be reached from outside
	}
	for most*most < area*2/3 {
		most += 20
	}
	for _, r := range ranks {
		tall := 0
		for _, kid := range r {
			tall += kid.h + betweenIt
		}
		parts := (tall + most - 1) / most
		sum, part := 0, 0
		var col []*slot
		for _, kid := range r {
			// A column ends where its share does.
			if sum += kid.h + betweenIt; len(col) > 0 && (sum-(kid.h+betweenIt)/2)*parts > (part+1)*tall {
				c.cols = append(c.cols, col)
				col, part = nil, part+1
			}
			kid.col = len(c.cols)
			kid.slot = &slot{it: kid, h: kid.h}
			col = append(col, kid.slot)
		}
		c.cols = append(c.cols, col)
	}
	return true
}

// port is the box that a line can reach from the right or left without going
// through another one: end itself, or the nearest around it.
func port(box, end *item, right bool) *item {
	at := box
	for at != end {
		next := end
		for next.in != at {
			next = next.in
		}
		if right && next.col != len(at.cols)-1 || !right && next.col != 0 {
			break
		}
		at = next
	}
	return at
}

// middle is how far below the top of box the middle of a box in it is.
func middle(box, at *item) int {
	y := at.h / 2
	for ; at != box; at = at.in {
		y += at.y
	}
	return y
}

// connect makes the lines.
func (c *item) connect() {
	type key struct {
		to   *item
		kind Kind
	}
	buses := map[key]*bus{}
	c.seams = make([][]*joint, len(c.cols))
	for _, l := range c.links {
		k := key{port(l.b, l.to, true), l.kind}
		b := buses[k]
		if b == nil {
			b = &bus{to: k.to, box: l.b, kind: l.kind, joined: map[*item]bool{}}
			buses[k] = b
			c.buses = append(c.buses, b)
		}
		b.says = append(b.says, l)
		for col := l.b.col + 1 + len(b.via); col < l.a.col; col++ {
			pass := &slot{h: passTall}
			c.cols[col] = append(c.cols[col], pass)
			c.join(pass, passTall/2, b, col-1, 4)
			b.via = append(b.via, pass)
		}
		if from := port(l.a, l.from, false); !b.joined[from] {
			b.joined[from] = true
			b.from = append(b.from, source{from, l.a})
			c.join(l.a.slot, middle(l.a, from), b, l.a.col-1, 1)
		}
	}
}

// join leads a line from a slot to what b has in the column before.
func (c *item) join(a *slot, ay int, b *bus, col, weight int) {
	j := &joint{a: a, ay: ay, b: b.box.slot, by: middle(b.box, b.to), weight: weight}
	if i := col - b.box.col - 1; i >= 0 {
		j.b, j.by = b.via[i], passTall/2
	}
	j.a.left = append(j.a.left, j)
	j.b.right = append(j.b.right, j)
	c.seams[col] = append(c.seams[col], j)
}

// place gives everything its coordinates.
func (c *item) place() {
	for _, col := range c.cols {
		y := 0
		for i, s := range col {
			if i > 0 {
				y += gap(col[i-1], s)
			}
			s.y = y
			y += s.h
		}
	}
	for pass := range 10 {
		last := pass >= 8
		for i := range c.cols {
			if pass%2 == 0 {
				settle(c.cols[i], true, last)
			} else {
				settle(c.cols[len(c.cols)-1-i], last, true)
			}
		}
	}
	top, bottom := c.cols[0][0].y, 0
	for _, col := range c.cols {
		top = min(top, col[0].y)
	}
	for _, col := range c.cols {
		for _, s := range col {
			s.y -= top
			bottom = max(bottom, s.y+s.h)
		}
	}
	var w, h, left int
	if c.in != nil {
		w, h = c.head()
		left = padding
	}
	c.top = h
	x := left
	for i, col := range c.cols {
		wide := 0
		for _, s := range col {
			if s.it != nil {
				wide = max(wide, s.it.w)
			}
		}
		for _, s := range col {
			if s.it != nil {
				s.it.x, s.it.y, s.it.w = x, h+s.y, wide
			}
		}
		c.at, c.wide = append(c.at, x), append(c.wide, wide)
		x += wide
		if i < len(c.cols)-1 {
			x += seamWide + min(60, 2*len(c.seams[i]))
		}
	}
	c.w, c.h = max(w, x+left), h+bottom+left
}

// settle moves a column's slots to where the lines on the given sides are
// straightest, as near as their order and the gaps between them let them:
// the least squares, by joining neighbours that push each other.
func settle(col []*slot, left, right bool) {
	type run struct {
		sum, weight int64
		n           int
	}
	var runs []run
	base := make([]int64, len(col))
	for i, s := range col {
		if i > 0 {
			base[i] = base[i-1] + int64(col[i-1].h+gap(col[i-1], s))
		}
		r := run{n: 1}
		pull := func(want, weight int) {
			r.sum += (int64(want) - base[i]) * int64(weight)
			r.weight += int64(weight)
		}
		if left {
			for _, j := range s.left {
				pull(j.b.y+j.by-j.ay, j.weight)
			}
		}
		if right {
			for _, j := range s.right {
				pull(j.a.y+j.ay-j.by, j.weight)
			}
		}
		if r.weight == 0 {
			pull(s.y, 1)
		}
		for len(runs) > 0 && runs[len(runs)-1].sum*r.weight > r.sum*runs[len(runs)-1].weight {
			p := runs[len(runs)-1]
			runs = runs[:len(runs)-1]
			r = run{p.sum + r.sum, p.weight + r.weight, p.n + r.n}
		}
		runs = append(runs, r)
	}
	i := 0
	for _, r := range runs {
		y := r.sum / r.weight
		if r.sum%r.weight < 0 {
			y-- // division cuts off; the order needs the floor
		}
		for range r.n {
			col[i].y = int(y + base[i])
			i++
		}
	}
}

func gap(a, b *slot) int {
	switch {
	case a.it != nil && b.it != nil:
		return betweenIt
	case a.it == nil && b.it == nil:
		return between
	}
	return besideIt
}

// absolute turns coordinates within boxes into the drawing's.
func (c *item) absolute(x, y int) {
	c.x, c.y = c.x+x, c.y+y
	c.top += c.y
	for i := range c.at {
		c.at[i] += c.x
	}
	for _, kid := range c.kids {
		kid.absolute(c.x, c.y)
	}
}
