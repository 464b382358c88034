package lsp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func (e *editor) complete(name string, p position) map[string]completionItem {
	e.t.Helper()
	out := map[string]completionItem{}
	for _, i := range ask[completionList](e, "textDocument/completion", e.at(name, p)).Items {
		out[i.Label] = i
	}
	return out
}

// What is offered at a place, in text that isn't finished.
func TestCompletion(t *testing.T) {
	files := map[string]string{
		"names.cluster.hcl": small,
		"mod/out.cluster.hcl": `output "address" {
  value = "x"
}
variable "size" {
  type = number
}
`,
		"call.cluster.hcl": "module \"m\" {\n  source = \"./mod\"\n}\n",
	}
	e := ready(t, files, map[string]any{"textDocument": map[string]any{"completion": map[string]any{"completionItem": map[string]any{"snippetSupport": true}}}})
	version := 1
	e.open("edit.cluster.hcl", "")
	for _, c := range []struct {
		text      string
		want, not string // by spaces
	}{
		{"‸", "cluster node group variable locals moved provider guarantee", "failover vip"},
		{"gr‸", "group guarantee", "failover"},
		{"group \"a\" {\n  ‸\n}\n", "preferred_owners failover resource lifecycle for_each count depends_on", "group model"},
		{"group \"a\" {\n  priority = 1\n  failover {\n    mode = \"none\"\n  }\n  ‸\n}\n", "demand failback resource", "priority failover"},
		{"group \"a\" {\n  failover {\n    ‸\n  }\n}\n", "mode threshold period", "priority"},
		{"group \"a\" {\n  failover {\n    mode = ‸", "automatic manual none var.port", ""},
		{"group \"a\" {\n  failover {\n    mode = \"‸\"\n  }\n}\n", "automatic manual none", "var.port abs"},
		{"cluster \"c\" {\n  configuration = \"hot‸\"\n}", "hot_spare virtual_server partial", ""},
		{"cluster \"c\" {\n  quorum {\n    model = ‸\n  }\n}", "majority_node_set single_quorum", ""},
		{"node \"x\" {\n  spare = ‸\n}\n", "true false", ""},
		{"node \"x\" {\n  provider = ‸\n}\n", "local", "abs var.port"},
		{"node \"x\" {\n  ‸\n}\n", "zone capacity role", "endpoint server_id"},
		{"group \"a\" {\n  preferred_owners = [‸", "node.n values local.host", "group.web node.x"},
		{"group \"a\" {\n  preferred_owners = [node.‸\n  priority = 3\n}\n", "n", "web"},
		{"group \"a\" {\n  depends_on = [group.‸]\n}\n", "web", "a n"},
		{"group \"a\" {\n  resource \"‸\" \"x\" {\n  }\n}\n", "ip_address generic_application script", ""},
		{"group \"a\" {\n  resource \"ip_address\" \"vip\" {\n    ‸\n  }\n}\n", "address interface pending_timeout is_alive", "command"},
		{"group \"a\" {\n  resource \"ip_address\" \"vip\" {\n  }\n  resource \"script\" \"s\" {\n    depends_on = [resource.‸]\n  }\n}\n", "vip", "server s"},
		{"group \"a\" {\n  resource \"ip_address\" \"vip\" {\n  }\n  resource \"script\" \"s\" {\n    start = [resource.vip.‸]\n  }\n}\n", "address interface", "depends_on"},
		{"output \"o\" {\n  value = group.web.‸\n}\n", "state owner name failover", "depends_on"},
		{"group \"a\" {\n  description = group.web.‸\n}\n", "name", "state owner"},
		{"output \"o\" {\n  value = group.web.failover.‸\n}\n", "mode threshold", "state"},
		{"output \"o\" {\n  value = \"x ${var.‸} y\"\n}\n", "port", "host"},
		{"output \"o\" {\n  value = \"var.‸\"\n}\n", "", "port"},
		{"output \"o\" {\n  value = var.port # var.‸\n}\n", "", "port"},
		{"# gr‸\n", "", "group"},
		{"output \"o\" {\n  value = local.‸\n}\n", "host", "port"},
		{"output \"o\" {\n  value = module.m.‸\n}\n", "address", "size"},
		{"module \"n\" {\n  source = \"./mod\"\n  ‸\n}\n", "", "gate"},
		{"node \"x\" {\n  for_each = toset([\"a\"])\n  zone = each.‸\n}\n", "key value", ""},
		{"node \"x\" {\n  zone = ‸\n}\n", "cidrhost var path", "each count self resource"},
		{"node \"x\" {\n  for_each = {}\n  zone = ‸\n}\n", "each", "count"},
		{"moved {\n  from = group.old\n  to   = ‸\n}\n", "group.web node.n group.web.resource.vip", "var.port abs"},
		{"moved {\n  to = group.web.‸\n}\n", "resource", ""},
		{"moved {\n  to = group.web.resource.‸\n}\n", "vip server", "web"},
		{"group \"a\" {\n  lifecycle {\n    ignore_changes = [‸]\n  }\n}\n", "priority description all", "name for_each var.port"},
		{"cluster \"c\" {\n  dynamic \"‸\" {\n  }\n}\n", "link heartbeat", "quorum lifecycle dynamic content"},
		{"cluster \"c\" {\n  dynamic \"link\" {\n    ‸\n  }\n}\n", "for_each iterator labels content", "subnet link"},
		{"cluster \"c\" {\n  dynamic \"link\" {\n    content {\n      ‸\n    }\n  }\n}\n", "subnet", "for_each content"},
		{"variable \"v\" {\n  type = ‸\n}\n", "string number list(string)", "var.port"},
		{"group \"a\" {\n  description = <<-EOT\n    ${var.‸}\n  EOT\n}\n", "port", ""},
		{"group \"a\" {\n  description = \"é🦊\" == var.‸\n}\n", "port", ""},
		{"provider \"‸\" {\n}\n", "local", "confdb"},
		{"locals {\n  a = {\n    b = var.‸\n  }\n}\n", "port", ""},
	} {
		text, at := where(t, c.text)
		version++
		e.change("edit.cluster.hcl", version, text)
		got := e.complete("edit.cluster.hcl", at)
		for _, name := range strings.Fields(c.want) {
			if _, ok := got[name]; !ok {
				t.Errorf("%q: no %s among %d", c.text, name, len(got))
			}
		}
		for _, name := range strings.Fields(c.not) {
			if _, ok := got[name]; ok {
				t.Errorf("%q: offers %s", c.text, name)
			}
		}
	}
	// What is put in, and where: behind characters of two units, in place of the word.
	text, at := where(t, "group \"a\" {\n  description = \"é🦊${var.p‸o}\"\n}\n")
	e.change("edit.cluster.hcl", 1000, text)
	item := e.complete("edit.cluster.hcl", at)["port"]
	if item.TextEdit == nil || applied(text, []textEdit{*item.TextEdit}) != "group \"a\" {\n  description = \"é🦊${var.port}\"\n}\n" || item.Documentation == nil || !strings.Contains(item.Documentation.Value, "Where it listens.") {
		t.Errorf("%+v", item)
	}
	text, at = where(t, "group \"a\" {\n  res‸\n}\n")
	e.change("edit.cluster.hcl", 1001, text)
	if item := e.complete("edit.cluster.hcl", at)["resource"]; item.Format != 2 || item.TextEdit.NewText != "resource \"${1:type}\" \"${2:name}\" {\n  $0\n}" {
		t.Errorf("%+v", item)
	}
	e.open("prod.vars.hcl", "")
	if got := e.complete("prod.vars.hcl", position{}); got["port"].TextEdit == nil || got["port"].TextEdit.NewText != "port = " || len(got) != 1 {
		t.Errorf("in a vars file: %+v", got)
	}
}

// Hover and definitions, of the same places.
func TestHoverAndDefinition(t *testing.T) {
	files := map[string]string{"main.cluster.hcl": small, "mod/out.cluster.hcl": "output \"address\" {\n  description = \"Where it is.\"\n  value = \"x\"\n}\n"}
	e := ready(t, files, nil)
	e.open("edit.cluster.hcl", "")
	version := 1
	for _, c := range []struct {
		text, want string
		at         string // where the definition is: FILE:LINE, "" for nowhere
	}{
		{"gro‸up \"a\" {\n}\n", "fail over together", ""},
		{"group \"a\" {\n  prio‸rity = 1\n}\n", "Default: `2000`", ""},
		{"group \"a\" {\n  resource \"ip_ad‸dress\" \"v\" {\n  }\n}\n", "moves with its group", ""},
		{"group \"a\" {\n  resource \"ip_address\" \"v\" {\n    addr‸ess = \"\"\n  }\n}\n", "A change restarts the resource.", ""},
		{"group \"a\" {\n  failover {\n    mo‸de = \"none\"\n  }\n}\n", "`automatic`, `manual`, `none`", ""},
		{"output \"o\" {\n  value = cidr‸host(\"10.0.0.0/8\", 1)\n}\n", "cidrhost(prefix string, hostnum", ""},
		{"output \"o\" {\n  value = var.po‸rt\n}\n", "Where it listens.", "main.cluster.hcl:6"},
		{"output \"o\" {\n  value = local.ho‸st\n}\n", "127.0.0.1", "main.cluster.hcl:13"},
		{"output \"o\" {\n  value = group.w‸eb.state\n}\n", "group \"web\"", "main.cluster.hcl:20"},
		{"output \"o\" {\n  value = group.web.pri‸ority\n}\n", "High comes up first", ""},
		{"moved {\n  from = group.x\n  to = group.web.resource.v‸ip\n}\n", "resource \"ip_address\" \"vip\"", "main.cluster.hcl:25"},
		{"module \"m\" {\n  source = \"./mod\"\n}\noutput \"o\" {\n  value = module.m.add‸ress\n}\n", "Where it is.", "mod/out.cluster.hcl:0"},
		{"output \"o\" {\n  value = \"var.po‸rt\"\n}\n", "", ""},
		{"‸\n", "", ""},
	} {
		text, at := where(t, c.text)
		version++
		e.change("edit.cluster.hcl", version, text)
		h := ask[*hover](e, "textDocument/hover", e.at("edit.cluster.hcl", at))
		if c.want == "" && h != nil || c.want != "" && (h == nil || !strings.Contains(h.Contents.Value, c.want)) {
			t.Errorf("%q: hover %+v", c.text, h)
		}
		l := ask[*location](e, "textDocument/definition", e.at("edit.cluster.hcl", at))
		got := ""
		if l != nil {
			name := strings.TrimPrefix(l.URI, uriOf(e.dir)+"/")
			b, _ := json.Marshal(l.Range.Start.Line)
			got = name + ":" + string(b)
		}
		if strings.HasPrefix(got, "edit.") {
			got = "" // the declaration itself
		}
		if got != c.at {
			t.Errorf("%q: defined at %q, want %q", c.text, got, c.at)
		}
	}
	symbols := func(name string) []string {
		var out []string
		for _, s := range ask[[]documentSymbol](e, "textDocument/documentSymbol", map[string]any{"textDocument": map[string]any{"uri": e.uri(name)}}) {
			out = append(out, s.Name)
			for _, inner := range s.Children {
				out = append(out, "- "+inner.Name)
			}
		}
		return out
	}
	e.open("main.cluster.hcl", small)
	if got := symbols("main.cluster.hcl"); !slices.Equal(got, []string{"cluster c", "variable port", "locals", "- host", "node n", "group web", "- resource ip_address vip", "- resource generic_application server"}) {
		t.Errorf("symbols: %q", got)
	}
}

func TestFormatting(t *testing.T) {
	e := ready(t, nil, nil)
	format := func(name, text string) ([]textEdit, string) {
		t.Helper()
		e.open(name, text)
		list := ask[[]textEdit](e, "textDocument/formatting", map[string]any{"textDocument": map[string]any{"uri": e.uri(name)}, "options": map[string]any{"tabSize": 2}})
		return list, applied(text, list)
	}
	list, got := format("main.cluster.hcl", "locals {\na=\"é🦊\"\n  bcd   = 2\n  e = 1\n\n}\n")
	if want := "locals {\n  a   = \"é🦊\"\n  bcd = 2\n  e   = 1\n\n}\n"; got != want || len(list) == 0 {
		t.Errorf("%q", got)
	}
	if list, _ := format("done.cluster.hcl", got); len(list) != 0 {
		t.Errorf("what is in order is changed: %+v", list)
	}
	if list, _ := format("bad.cluster.hcl", "locals {\n a=\n"); len(list) != 0 {
		t.Errorf("what doesn't parse is changed: %+v", list)
	}
	e.open("main.tf", "a=1\n")
	if m := e.call("textDocument/formatting", map[string]any{"textDocument": map[string]any{"uri": e.uri("main.tf")}}); m.Error == nil || m.Error.Code != int(requestFailed) {
		t.Errorf("another language: %+v", m)
	}
}
