package lsp

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/clusterplan/clusterplan/lang"
)

// cut takes the mark out of the one file that has it.
func cut(t *testing.T, files map[string]string) (out map[string]string, name string, at position) {
	t.Helper()
	out = map[string]string{}
	for file, text := range files {
		if strings.Contains(text, "‸") {
			text, at = where(t, text)
			name = file
		}
		out[file] = text
	}
	return out, name, at
}

const tail = "cluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\n"

// Each rename gives a definition that means the same, and where state hangs on
// the name, says that it has moved.
func TestRename(t *testing.T) {
	for _, c := range []struct {
		name, to string
		files    map[string]string
		want     map[string]string
	}{
		{"a node, everywhere", "primary", map[string]string{
			"a.cluster.hcl":  tail + "node \"n‸1\" {\n  provider = local\n}\n",
			"b.cluster.hcl":  "group \"g\" {\n  preferred_owners = [/* é🦊 */ node.n1, node[\"n1\"]]\n  description = \"${node.n1.name} node.n1\" # node.n1\n  failover {\n    mode = \"none\"\n  }\n}\noutput \"o\" {\n  value = [for n1 in [node.n1] : n1.name]\n  depends_on = [node.n1]\n}\n",
			"x.scenario.hcl": "scenario \"s\" {\n  step {\n    kill = node.n1\n  }\n}\n",
		}, map[string]string{
			"a.cluster.hcl":  tail + "node \"primary\" {\n  provider = local\n}\n\nmoved {\n  from = node.n1\n  to   = node.primary\n}\n",
			"b.cluster.hcl":  "group \"g\" {\n  preferred_owners = [/* é🦊 */ node.primary, node[\"primary\"]]\n  description = \"${node.primary.name} node.n1\" # node.n1\n  failover {\n    mode = \"none\"\n  }\n}\noutput \"o\" {\n  value = [for n1 in [node.primary] : n1.name]\n  depends_on = [node.primary]\n}\n",
			"x.scenario.hcl": "scenario \"s\" {\n  step {\n    kill = node.primary\n  }\n}\n",
		}},
		{"a group, from a reference, with an import and what moved before", "db", map[string]string{
			"a.cluster.hcl": "group \"sql\" {\n}\ngroup \"b\" {\n  depends_on = [group.s‸ql]\n}\nmoved {\n  from = group.older\n  to = group.sql\n}\nimport {\n  to = group.sql\n  id = \"x\"\n}\noutput \"o\" {\n  value = 1\n  depends_on = [group.sql.resource.vip]\n}",
		}, map[string]string{
			"a.cluster.hcl": "group \"db\" {\n}\ngroup \"b\" {\n  depends_on = [group.db]\n}\nmoved {\n  from = group.older\n  to = group.sql\n}\nimport {\n  to = group.db\n  id = \"x\"\n}\noutput \"o\" {\n  value = 1\n  depends_on = [group.db.resource.vip]\n}\n\nmoved {\n  from = group.sql\n  to   = group.db\n}\n",
		}},
		{"a resource: the other group has one of that name", "ip", map[string]string{
			"a.cluster.hcl": "group \"a\" {\n  resource \"ip_address\" \"v‸ip\" {\n  }\n  resource \"script\" \"s\" {\n    depends_on = [resource.vip]\n  }\n}\ngroup \"b\" {\n  resource \"ip_address\" \"vip\" {\n  }\n  resource \"script\" \"s\" {\n    depends_on = [resource.vip]\n  }\n}\noutput \"o\" {\n  value = 1\n  depends_on = [group.a.resource.vip, group.b.resource.vip]\n}\n",
		}, map[string]string{
			"a.cluster.hcl": "group \"a\" {\n  resource \"ip_address\" \"ip\" {\n  }\n  resource \"script\" \"s\" {\n    depends_on = [resource.ip]\n  }\n}\ngroup \"b\" {\n  resource \"ip_address\" \"vip\" {\n  }\n  resource \"script\" \"s\" {\n    depends_on = [resource.vip]\n  }\n}\noutput \"o\" {\n  value = 1\n  depends_on = [group.a.resource.ip, group.b.resource.vip]\n}\n\nmoved {\n  from = group.a.resource.vip\n  to   = group.a.resource.ip\n}\n",
		}},
		{"back again", "old", map[string]string{
			"a.cluster.hcl": "group \"n‸ew\" {\n}\nmoved {\n  from = group.old\n  to   = group.new\n}\n",
		}, map[string]string{
			"a.cluster.hcl": "group \"old\" {\n}\nmoved {\n  from = group.new\n  to   = group.old\n}\n",
		}},
		{"a variable, with its values", "size", map[string]string{
			"a.cluster.hcl": "variable \"count_of\" {\n  validation {\n    condition = var.count_of > 1\n    error_message = \"${var.cou‸nt_of}\"\n  }\n}\nlocals {\n  count_of = var.count_of\n}\n",
			"auto.vars.hcl": "count_of = 3\n", "prod.vars.hcl": "count_of = 4\n",
		}, map[string]string{
			"a.cluster.hcl": "variable \"size\" {\n  validation {\n    condition = var.size > 1\n    error_message = \"${var.size}\"\n  }\n}\nlocals {\n  count_of = var.size\n}\n",
			"auto.vars.hcl": "size = 3\n", "prod.vars.hcl": "size = 4\n",
		}},
		{"a local value", "b", map[string]string{"a.cluster.hcl": "locals {\n  ‸a = 1\n  c = local.a + local[\"a\"]\n}\n"}, map[string]string{"a.cluster.hcl": "locals {\n  b = 1\n  c = local.b + local[\"b\"]\n}\n"}},
		{"an output", "b", map[string]string{"a.cluster.hcl": "output \"a‸\" {\n  value = 1\n}\n"}, map[string]string{"a.cluster.hcl": "output \"b\" {\n  value = 1\n}\n"}},
		{"a guarantee", "b", map[string]string{"a.cluster.hcl": "guarantee \"‸a\" {\n  groups = []\n}\n"}, map[string]string{"a.cluster.hcl": "guarantee \"b\" {\n  groups = []\n}\n"}},
	} {
		for _, versions := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				files, name, at := cut(t, c.files)
				e := ready(t, files, map[string]any{"workspace": map[string]any{"workspaceEdit": map[string]any{"documentChanges": versions}}})
				e.open(name, files[name])
				prepared := ask[struct {
					Range       textRange `json:"range"`
					Placeholder string    `json:"placeholder"`
				}](e, "textDocument/prepareRename", e.at(name, at))
				d := newDocument([]byte(files[name]), 1)
				if old := files[name][d.offset(prepared.Range.Start, utf16):d.offset(prepared.Range.End, utf16)]; old != prepared.Placeholder || old == "" {
					t.Errorf("it is about %q, called %q", old, prepared.Placeholder)
				}
				p := e.at(name, at)
				p["newName"] = c.to
				w := ask[workspaceEdit](e, "textDocument/rename", p)
				if (len(w.DocumentChanges) > 0) != versions || (len(w.Changes) > 0) == versions {
					t.Errorf("the wrong form of edit: %+v", w)
				}
				got := e.apply(files, w)
				for file, want := range c.want {
					if got[file] != want {
						t.Errorf("%s:\n%s\nwant\n%s", file, got[file], want)
					}
				}
				means(t, got)
			})
		}
	}
}

// means checks that the names and moves of a definition are sound.
func means(t *testing.T, files map[string]string) {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text), Mode: fs.FileMode(0o644)}
	}
	o := testLanguage
	o.FS = m
	_, diags := lang.Load(o)
	for _, d := range diags {
		for _, about := range []string{"Unknown", "Duplicate", "Cycle of moved", "Moved", "Undeclared"} {
			if strings.HasPrefix(d.Summary, about) {
				t.Errorf("after the rename: %s", d)
			}
		}
	}
}

func TestRenameRefused(t *testing.T) {
	for _, c := range []struct {
		name, to, want string
		files          map[string]string
	}{
		{"taken", "b", "taken", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\n", "z.cluster.hcl": "group \"b\" {\n}\n"}},
		{"no name", "a b", "can't be a name", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\n"}},
		{"no ASCII", "ä", "can't be a name", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\n"}},
		{"empty", "", "can't be a name", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\n"}},
		{"syntax errors elsewhere", "b", "z.cluster.hcl has syntax errors", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\n", "z.cluster.hcl": "group \"b\" {\n  depends_on = [group.\n}\n"}},
		{"nothing there", "b", "no name here", map[string]string{"a.cluster.hcl": "group \"a\" {\n  ‸priority = 1\n}\n"}},
		{"the cluster", "b", "cluster", map[string]string{"a.cluster.hcl": "cluster \"‸a\" {\n}\n"}},
		{"JSON speaks of it", "b", "more.cluster.json", map[string]string{"a.cluster.hcl": "group \"‸web\" {\n}\n", "more.cluster.json": `{"output": {"o": {"value": "${group.web.name}"}}}`}},
		{"moved away", "b", "moves away", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\nmoved {\n  from = group.a\n  to = group.c\n}\n"}},
		{"a long way back", "a", "cycle", map[string]string{"a.cluster.hcl": "group \"‸c\" {\n}\nmoved {\n  from = group.a\n  to = group.b\n}\nmoved {\n  from = group.b\n  to = group.c\n}\n"}},
		{"declared twice", "b", "declared 2 times", map[string]string{"a.cluster.hcl": "group \"‸a\" {\n}\ngroup \"a\" {\n}\n"}},
		{"a module", "b", "by hand", map[string]string{"a.cluster.hcl": "module \"‸a\" {\n  source = \"./m\"\n}\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, name, at := cut(t, c.files)
			e := ready(t, files, nil)
			e.open(name, files[name])
			p := e.at(name, at)
			p["newName"] = c.to
			m := e.call("textDocument/rename", p)
			if m.Error == nil || m.Error.Code != int(requestFailed) || !strings.Contains(m.Error.Message, c.want) {
				t.Errorf("%+v %s", m.Error, m.Result)
			}
		})
	}
}

// A module's variable is refused while a definition that calls it is open: what
// it gives stands in another directory.
func TestRenameInModule(t *testing.T) {
	files := map[string]string{
		"root/main.cluster.hcl": "module \"m\" {\n  source = \"../mod\"\n  size   = 3\n}\n",
		"mod/main.cluster.hcl":  "variable \"size\" {\n}\n",
	}
	e := ready(t, files, nil)
	e.open("root/main.cluster.hcl", files["root/main.cluster.hcl"])
	e.diagnostics("root/main.cluster.hcl", 1)
	e.open("mod/main.cluster.hcl", files["mod/main.cluster.hcl"])
	p := e.at("mod/main.cluster.hcl", position{0, 11})
	p["newName"] = "extent"
	if m := e.call("textDocument/rename", p); m.Error == nil || !strings.Contains(m.Error.Message, "calls this module") {
		t.Errorf("%+v %s", m.Error, m.Result)
	}
	refs := ask[[]location](e, "textDocument/references", map[string]any{"textDocument": map[string]any{"uri": e.uri("mod/main.cluster.hcl")}, "position": position{0, 11}, "context": map[string]any{"includeDeclaration": true}})
	if len(refs) != 1 {
		t.Errorf("references: %+v", refs)
	}
}

// FuzzMessages sends bytes as an editor might, framed and not, and then asks
// in good order: the server lives, or has ended with an error, and never panics.
func FuzzMessages(f *testing.F) {
	open := func(text string) string {
		return `{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":"file:///w/a.cluster.hcl","version":1,"text":"` + text + `"}}}`
	}
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"textDocument/hover","params":{"textDocument":{"uri":"file:///w/a.cluster.hcl"},"position":{"line":0,"character":3}}}`,
		`[{"jsonrpc":"2.0","id":1,"method":"textDocument/hover"},{"jsonrpc":"2.0","method":"exit"}]`,
		open(`group \"a\" {\n  preferred_owners = [node.`), open(`x = <<EOT\n${`), open(`a = \"${\"${`), open(`\ud83e\udd8a`), open(`node \"n\" { for_each = `),
		`{"jsonrpc":"2.0","method":"textDocument/didChange","params":{"textDocument":{"uri":"file:///w/a.cluster.hcl","version":2},"contentChanges":[{"range":{"start":{"line":9,"character":9},"end":{"line":0,"character":0}},"text":"\r\n\r"}]}}`,
		`{"jsonrpc":"2.0","id":2,"method":"textDocument/rename","params":{"textDocument":{"uri":"file:///w/a.cluster.hcl"},"position":{"line":0,"character":8},"newName":"x"}}`,
		`{"jsonrpc":"2.0","id":"x","method":"initialize","params":{"rootUri":"http://x"}}`, `null`, `{}`, `[]`, "{\"id\":{}}", "{\"sonrpc\":\"2.0\",\"method\":\"textDocument/didOpen\",\"params\":{\"uri\":\"file:\xa9///w\"}}", `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":1}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message string) {
		if len(message) > 1<<16 {
			return
		}
		s := newServer(Config{Language: testLanguage, Log: panicLog(t)})
		s.push = func(context.Context, string, any) error { return nil }
		s.ask, s.stop, s.spawn = s.push, func() {}, func(func()) {}
		s.state, s.roots = stateReady, []string{"/w"}
		converse(t, s, message)
		for path := range s.open {
			s.lookAt(context.Background(), filepath.Dir(path), s.analysis.serial)
		}
	})
}

// FuzzPlaces asks for everything at a place of a text. An execution is one place:
// Go tries hundreds of shorter texts for each that reaches new code, for a minute
// at most, and counts none of them. With -fuzzminimizetime=10x it goes on sooner.
func FuzzPlaces(f *testing.F) {
	for _, text := range []string{small,
		"group \"a\" {\n  resource \"",
		"a = \"${<<A\n\"",
		"node \"n\" {\n  zone = node.n[\"é🦊\"].",
		"moved {\n from = a\n to = \n}\nlocals {\n x = [(\n y = 1 }",
		"cluster \"c\" {\n dynamic \"link\" {\n iterator = it\n content {\n s",
	} {
		for offset := 0; offset <= len(text); offset += 1 + len(text)/40 {
			f.Add(text, uint16(offset), offset%2 == 0)
			f.Add(text, uint16(offset), offset%2 != 0)
		}
	}
	f.Fuzz(func(t *testing.T, text string, at uint16, inBytes bool) {
		if len(text) > 2000 {
			return
		}
		s := newServer(Config{Language: testLanguage, Log: panicLog(t)})
		s.state = stateReady
		path, enc := "/w/nowhere/a.cluster.hcl", utf16
		if inBytes {
			enc = utf8s
		}
		s.put(path, newDocument([]byte(text), 1))
		doc, offset := s.open[path], min(int(at), len(text))
		p := doc.position(offset, enc)
		if back := doc.offset(p, enc); back > offset || doc.position(back, enc) != p {
			t.Fatalf("offset %d is at %+v, which is offset %d", offset, p, back)
		}
		here := spot{path, doc, offset, enc}
		if _, err := s.completion(here); err != nil {
			t.Fatal(err)
		}
		if _, err := s.hover(here); err != nil {
			t.Fatal(err)
		}
		_, _ = s.definition(here)
		_, _ = s.prepareRename(here)
		if symbolOf(doc, doc.outline, enc); offset == 0 {
			s.diagnose(s.view("/w/nowhere"), func() bool { return false })
		}
	})
}

// The smallest examples are read as they are written.
func TestExamplesAreSound(t *testing.T) {
	all, err := filepath.Glob("../examples/*/*.cluster.hcl")
	if err != nil || len(all) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, diags := lang.Parse(text, path)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		// The outline, which is made without a parser, has the same declarations.
		s := newServer(Config{Language: testLanguage})
		dir := filepath.Dir(path)
		abs, err := filepath.Abs(dir)
		if err != nil {
			t.Fatal(err)
		}
		names := s.names(abs)
		for _, m := range lang.Mentions(file) {
			if m.Declared && find(names, m.Symbol) == nil {
				t.Errorf("%s: the outline has no %+v", path, m.Symbol)
			}
		}
	}
}
