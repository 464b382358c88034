package lsp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/clusterplan/clusterplan/lang"
)

// renamable are the kinds of names that rename changes. The others are part of
// what runs (a cluster's name), or of addresses in other directories.
var renamable = []string{"var", "local", "output", "node", "group", "resource", "fence", "guarantee", "check", "machine", "network", "volume"}

// identity are the kinds whose name is an address in the state: a rename writes
// a moved block.
var identity = []string{"node", "group", "resource", "fence", "machine", "network", "volume"}

// renaming is what a rename is about.
type renaming struct {
	*declared
	dir  string
	word word // what the cursor is on
}

func (s *server) renaming(at spot) (*renaming, error) {
	p := placeAt(at.doc, at.offset)
	d := s.meant(at, p)
	if d == nil {
		return nil, failed("there is no name here that the definition declares")
	}
	if !slices.Contains(renamable, d.Kind) {
		if d.Kind == "cluster" {
			return nil, failed("a cluster isn't renamed by its label: change the line, and the next apply renames it in place")
		}
		return nil, failed("the name of a %s can't be changed here: change it by hand, and its address with a moved block", d.block.typ)
	}
	if filepath.Dir(d.path) != filepath.Dir(at.path) {
		return nil, failed("%s %q is declared in %s; rename it there", d.block.typ, d.Name, d.path)
	}
	return &renaming{d, filepath.Dir(d.path), p.word}, nil
}

func (s *server) prepareRename(at spot) (any, error) {
	r, err := s.renaming(at)
	if err != nil {
		return nil, err
	}
	return object{"range": at.doc.textRange(r.word.start, r.word.end, at.enc), "placeholder": r.Name}, nil
}

// mention is a place in a file where a symbol stands.
type mention struct {
	lang.Mention
	path string
	doc  *document
}

// mentions lists where names stand in all files of a directory. Files with
// syntax errors are an error: what is in them isn't known.
func (s *server) mentions(v view) ([]mention, error) {
	var out []mention
	for _, name := range v.names(hclSuffix, varsSuffix, scenarioSuffix) {
		path := filepath.Join(v.dir, name)
		doc := v.open[path]
		if doc == nil {
			doc = s.onDisk(path)
		}
		if doc == nil {
			return nil, failed("%s can't be read, or is longer than %d KiB: what it refers to isn't known", path, maxText>>10)
		}
		f, diags := s.parse(doc.text, path)
		if diags.HasErrors() || len(doc.text) > maxText {
			return nil, failed("%s has syntax errors: mend them first, for what it refers to isn't known", name)
		}
		if strings.HasSuffix(name, varsSuffix) {
			if body, ok := f.Body.(*hclsyntax.Body); ok {
				for _, a := range body.Attributes {
					out = append(out, mention{lang.Mention{Symbol: lang.Symbol{Kind: "var", Name: a.Name}, Range: a.NameRange}, path, doc})
				}
			}
			continue
		}
		for _, m := range lang.Mentions(f) {
			out = append(out, mention{m, path, doc})
		}
	}
	return out, nil
}

func (s *server) references(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[referenceParams](raw)
	if err != nil {
		return nil, err
	}
	at, err := s.spot(p.positionParams)
	if err != nil {
		return nil, err
	}
	d := s.meant(at, placeAt(at.doc, at.offset))
	if d == nil {
		return []location{}, nil
	}
	all, err := s.mentions(s.view(filepath.Dir(d.path)))
	if err != nil {
		return nil, err
	}
	out := []location{}
	for _, m := range all {
		if m.Symbol == d.Symbol && (!m.Declared || p.Context.IncludeDeclaration) {
			out = append(out, location{uriOf(m.path), m.doc.textRange(m.Range.Start.Byte, m.Range.End.Byte, at.enc)})
		}
	}
	return out, nil
}

func (s *server) rename(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[renameParams](raw)
	if err != nil {
		return nil, err
	}
	at, err := s.spot(p.positionParams)
	if err != nil {
		return nil, err
	}
	r, err := s.renaming(at)
	if err != nil {
		return nil, err
	}
	if !lang.ValidName(p.NewName) {
		return nil, failed("%q can't be a name: a name is a letter or _, then letters, digits, _ and -", p.NewName)
	}
	if p.NewName == r.Name {
		return s.edit(nil), nil
	}
	v := s.view(r.dir)
	all, err := s.mentions(v)
	if err != nil {
		return nil, err
	}
	to := r.Symbol
	to.Name = p.NewName
	for _, m := range all {
		if m.Declared && m.Symbol == to {
			return nil, failed("%s is taken: it is declared at %s:%d", refText(to), filepath.Base(m.path), m.Range.Start.Line)
		}
	}
	if err := s.inJSON(v, r.Symbol); err != nil {
		return nil, err
	}
	if err := s.outside(r); err != nil {
		return nil, err
	}
	edits := map[string][]textEdit{}
	docs := map[string]*document{}
	declarations := 0
	for _, m := range all {
		if m.Symbol != r.Symbol || m.Moved && slices.Contains(identity, r.Kind) {
			continue // a moved block tells of an address that was
		}
		if m.Declared {
			declarations++
		}
		docs[m.path] = m.doc
		edits[m.path] = append(edits[m.path], textEdit{m.doc.textRange(m.Range.Start.Byte, m.Range.End.Byte, v.enc), p.NewName})
	}
	if declarations != 1 {
		return nil, failed("%s is declared %d times; only one that is declared once can be renamed", refText(r.Symbol), declarations)
	}
	if slices.Contains(identity, r.Kind) {
		path, doc, e, err := s.movedEdit(v, r, to)
		if err != nil {
			return nil, err
		}
		docs[path] = doc
		edits[path] = append(edits[path], e...)
	}
	return s.edit(func(add func(path string, doc *document, e []textEdit)) {
		for path, e := range edits {
			add(path, docs[path], e)
		}
	}), nil
}

// edit makes the answer in the form that the editor knows.
func (s *server) edit(fill func(add func(path string, doc *document, e []textEdit))) *workspaceEdit {
	out := &workspaceEdit{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fill == nil {
		return out
	}
	fill(func(path string, doc *document, e []textEdit) {
		sort.SliceStable(e, func(i, j int) bool {
			a, b := e[i].Range.Start, e[j].Range.Start
			return a.Line < b.Line || a.Line == b.Line && a.Character < b.Character
		})
		if !s.versions {
			if out.Changes == nil {
				out.Changes = map[string][]textEdit{}
			}
			out.Changes[uriOf(path)] = e
			return
		}
		id := versionedID{URI: uriOf(path)}
		if s.open[path] != nil {
			id.Version = &doc.version
		}
		out.DocumentChanges = append(out.DocumentChanges, documentEdit{id, e})
	})
	sort.Slice(out.DocumentChanges, func(i, j int) bool {
		return out.DocumentChanges[i].TextDocument.URI < out.DocumentChanges[j].TextDocument.URI
	})
	return out
}

// refText is how a symbol is written.
func refText(s lang.Symbol) string {
	if s.Kind == "resource" {
		return "group." + s.Group + ".resource." + s.Name
	}
	return s.Kind + "." + s.Name
}

// inJSON refuses where a file in JSON speaks of a name: references in its
// strings aren't changed here.
func (s *server) inJSON(v view, symbol lang.Symbol) error {
	for _, name := range v.names(jsonSuffix) {
		src, err := fs.ReadFile(v.fsys, name)
		if err != nil {
			return failed("%s can't be read: %v", name, err)
		}
		for at := 0; ; {
			i := bytes.Index(src[at:], []byte(symbol.Name))
			if i < 0 {
				break
			}
			i += at
			at = i + len(symbol.Name)
			if (i == 0 || !nameByte(src[i-1])) && (at == len(src) || !nameByte(src[at])) {
				return failed("%s speaks of %q, and JSON isn't changed by rename: change the name by hand, with a moved block where it has state", name, symbol.Name)
			}
		}
	}
	return nil
}

// outside refuses to rename what another directory of the workspace may name:
// variables and outputs of a module that is called there.
func (s *server) outside(r *renaming) error {
	if r.Kind != "var" && r.Kind != "output" {
		return nil
	}
	users := s.users(r.dir)
	if len(users) == 0 {
		return nil
	}
	what := "gives a value to it"
	if r.Kind == "output" {
		what = "may refer to it"
	}
	return failed("the definition in %s calls this module and %s: change the name by hand, there as well", users[0], what)
}

// users are the directories that call the module in dir, as far as they are known.
func (s *server) users(dir string) []string {
	s.analysis.mu.Lock()
	defer s.analysis.mu.Unlock()
	var out []string
	for user, r := range s.analysis.found {
		if slices.Contains(r.uses, dir) {
			out = append(out, user)
		}
	}
	slices.Sort(out)
	return out
}

// movedEdit writes the moved block of a rename, behind what the file of the
// declaration holds. Where a block says the way back, it is turned round: the two
// would be a cycle, and it holds whether or not it was applied.
func (s *server) movedEdit(v view, r *renaming, to lang.Symbol) (string, *document, []textEdit, error) {
	from, dest := refText(r.Symbol), refText(to)
	next := map[string]string{} // what moved blocks say
	type found struct {
		path     string
		doc      *document
		from, to *attr
	}
	var back *found
	for _, name := range v.names(hclSuffix) {
		path := filepath.Join(v.dir, name)
		doc := s.file(path)
		if doc == nil {
			continue
		}
		for _, b := range doc.outline.blocks {
			f, t := b.attr("from"), b.attr("to")
			if b.typ != "moved" || f == nil || t == nil {
				continue
			}
			a, z := strings.TrimSpace(string(doc.text[f.start:f.end])), strings.TrimSpace(string(doc.text[t.start:t.end]))
			next[a] = z
			if a == dest && z == from {
				back = &found{path, doc, f, t}
			}
			if a == from {
				return "", nil, nil, failed("a moved block in %s moves away from %s already: remove it first", name, from)
			}
		}
	}
	if back != nil {
		return back.path, back.doc, []textEdit{
			{back.doc.textRange(back.from.start, back.from.end, v.enc), " " + from},
			{back.doc.textRange(back.to.start, back.to.end, v.enc), " " + dest},
		}, nil
	}
	for at, n := dest, 0; next[at] != "" && n <= len(next); n++ {
		if at = next[at]; at == from {
			return "", nil, nil, failed("moved blocks lead from %s to %s, and the way back would be a cycle: remove those that every state has seen first", dest, from)
		}
	}
	text := string(r.doc.text)
	lead := "\n"
	if !strings.HasSuffix(text, "\n") {
		lead = "\n\n"
	}
	end := len(text)
	return r.path, r.doc, []textEdit{{r.doc.textRange(end, end, v.enc), fmt.Sprintf("%smoved {\n  from = %s\n  to   = %s\n}\n", lead, from, dest)}}, nil
}
