package lsp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const small = `cluster "c" {
  quorum {
    model = "single_node"
  }
}

variable "port" {
  type        = number
  description = "Where it listens."
  default     = 8080
}

locals {
  host = "127.0.0.1"
}

node "n" {
  provider = local
}

group "web" {
  preferred_owners = [node.n]
  failover {
    mode = "none"
  }
  resource "ip_address" "vip" {
    address = "127.9.9.9"
  }
  resource "generic_application" "server" {
    command    = ["web", "${local.host}:${var.port}"]
    depends_on = [resource.vip]
  }
}
`

func messages(list []diagnostic) string {
	var out []string
	for _, d := range list {
		out = append(out, fmt.Sprintf("%d:%d-%d:%d %d %s", d.Range.Start.Line, d.Range.Start.Character, d.Range.End.Line, d.Range.End.Character, d.Severity, d.Message))
	}
	return strings.Join(out, "\n")
}

// Pipes beside a definition are not read, whatever their names, nor are links to one: that
// would wait for whoever writes to them. Those that would be part of it are told of.
func TestBesidePipes(t *testing.T) {
	files := map[string]string{"main.cluster.hcl": small}
	e := start(t, files)
	for _, name := range []string{"prod.vars.hcl", "a.scenario.hcl"} {
		if err := errors.Join(syscall.Mkfifo(filepath.Join(e.dir, name), 0o600), os.Symlink(name, filepath.Join(e.dir, "link-"+name))); err != nil {
			t.Fatal(err)
		}
	}
	ask[struct{}](e, "initialize", map[string]any{"rootUri": uriOf(e.dir), "capabilities": map[string]any{}})
	e.notify("initialized", map[string]any{})
	e.open("main.cluster.hcl", small)
	if d := e.diagnostics("main.cluster.hcl", 1); len(d) != 0 {
		t.Fatalf("a definition without fault: %s", messages(d))
	}
	if err := os.Symlink("prod.vars.hcl", filepath.Join(e.dir, "b.cluster.hcl")); err != nil {
		t.Fatal(err)
	}
	e.change("main.cluster.hcl", 2, small+"\n")
	if d := e.diagnostics("main.cluster.hcl", 2); len(d) != 1 || !strings.Contains(d[0].Message, "b.cluster.hcl: it is a pipe") {
		t.Errorf("a link to a pipe in it: %s", messages(d))
	}
}

// A whole conversation: what is typed is told of, and nothing else is.
func TestConversation(t *testing.T) {
	e := start(t, map[string]string{"main.cluster.hcl": small, "more.cluster.hcl": "output \"port\" {\n  value = var.port\n}\n"})
	if m := e.call("textDocument/hover", e.at("main.cluster.hcl", position{})); m.Error == nil || m.Error.Code != -32002 {
		t.Fatalf("a request before initialize: %+v", m)
	}
	type initialized struct {
		Capabilities struct {
			PositionEncoding string `json:"positionEncoding"`
			TextDocumentSync struct {
				Change int `json:"change"`
			} `json:"textDocumentSync"`
		} `json:"capabilities"`
	}
	got := ask[initialized](e, "initialize", map[string]any{"rootUri": uriOf(e.dir), "capabilities": map[string]any{}})
	if got.Capabilities.PositionEncoding != "utf-16" || got.Capabilities.TextDocumentSync.Change != 2 {
		t.Errorf("%+v", got)
	}
	e.notify("initialized", map[string]any{})
	e.open("main.cluster.hcl", small)
	if d := e.diagnostics("main.cluster.hcl", 1); len(d) != 0 {
		t.Fatalf("a definition without fault: %s", messages(d))
	}
	// One letter more, as an editor sends it: of a text with an emoji before it.
	line := strings.Count(small[:strings.Index(small, "node.n]")], "\n")
	e.notify("textDocument/didChange", map[string]any{"textDocument": map[string]any{"uri": e.uri("main.cluster.hcl"), "version": 2},
		"contentChanges": []any{
			map[string]any{"range": textRange{position{uint32(line), 2}, position{uint32(line), 2}}, "text": "/* 🦊é */ "},
			map[string]any{"range": textRange{position{uint32(line), 38}, position{uint32(line), 38}}, "text": "m"},
		}})
	d := e.diagnostics("main.cluster.hcl", 2)
	if len(d) != 1 || !strings.Contains(d[0].Message, "node.nm") || !strings.Contains(d[0].Message, "Did you mean node.n?") {
		t.Fatalf("a name that there isn't: %s", messages(d))
	}
	if at := d[0].Range; at.Start != (position{uint32(line), 32}) || at.End != (position{uint32(line), 39}) {
		t.Errorf("it stands at %+v: columns are UTF-16 units", at)
	}
	// A fault in a file that isn't open is told there, and goes again.
	renamed := strings.Replace(small, `variable "port"`, `variable "ports"`, 1)
	renamed = strings.Replace(renamed, "var.port", "var.ports", 1)
	e.change("main.cluster.hcl", 3, renamed)
	if d := e.diagnostics("main.cluster.hcl", 3); len(d) != 0 {
		t.Errorf("%s", messages(d))
	}
	if d := e.diagnostics("more.cluster.hcl", 0); len(d) != 1 || d[0].Range.Start != (position{1, 10}) {
		t.Errorf("in the other file: %s", messages(d))
	}
	e.change("main.cluster.hcl", 4, small)
	if d := e.diagnostics("more.cluster.hcl", 0); len(d) != 0 {
		t.Errorf("what is mended is still told: %s", messages(d))
	}
	// The buffer of the other file counts, and not what is on disk.
	e.open("more.cluster.hcl", "output \"port\" {\n  value = \n}\n")
	if d := e.diagnostics("more.cluster.hcl", 1); len(d) == 0 || d[0].Range.Start.Line != 1 {
		t.Errorf("syntax: %s", messages(d))
	}
	e.notify("textDocument/didClose", map[string]any{"textDocument": map[string]any{"uri": e.uri("more.cluster.hcl")}})
	if d := e.diagnostics("more.cluster.hcl", 0); len(d) != 0 {
		t.Errorf("after the close, the file on disk counts: %s", messages(d))
	}
	// A file that changes on disk.
	if err := os.WriteFile(filepath.Join(e.dir, "more.cluster.hcl"), []byte("output \"x\" {\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	e.notify("workspace/didChangeWatchedFiles", map[string]any{"changes": []any{map[string]any{"uri": e.uri("more.cluster.hcl"), "type": 2}}})
	if d := e.diagnostics("more.cluster.hcl", 0); len(d) != 1 {
		t.Errorf("what changed on disk: %s", messages(d))
	}
	// Files of values: those that load by themselves, and the others.
	e.open("prod.vars.hcl", "port = \"many\"\nprot = 1\n")
	if d := e.diagnostics("prod.vars.hcl", 1); len(d) != 2 || d[0].Severity != 1 || d[1].Severity != 2 || !strings.Contains(d[1].Message, "port") {
		t.Errorf("vars file: %s", messages(d))
	}
	if m := e.call("shutdown", nil); m.Error != nil || string(m.Result) != "null" {
		t.Errorf("shutdown: %+v", m)
	}
	if m := e.call("textDocument/hover", e.at("main.cluster.hcl", position{})); m.Error == nil || m.Error.Code != -32600 {
		t.Errorf("a request after shutdown: %+v", m)
	}
	e.notify("exit", nil)
	select {
	case err := <-e.ended:
		if err != nil {
			t.Errorf("the end: %v", err)
		}
	case <-time.After(patience):
		t.Error("the server doesn't end")
	}
}

// While one block is being written, what is wrong in the others is still told,
// and what they define is known.
func TestBrokenBlockHidesNoOther(t *testing.T) {
	e := ready(t, map[string]string{"main.cluster.hcl": small}, nil)
	text := strings.Replace(small, "locals {\n", "output \"o\" {\n  value = [1,\n\nlocals {\n", 1)
	text = strings.Replace(text, "resource.vip]", "resource.vop]", 1)
	e.open("main.cluster.hcl", text)
	d := e.diagnostics("main.cluster.hcl", 1)
	if len(d) != 2 || !strings.Contains(d[0].Message, "found the next block") || d[0].Range.Start.Line != 14 || !strings.Contains(d[1].Message, "resource.vop") {
		t.Errorf("of a list that isn't closed, and of a name that there isn't:\n%s", messages(d))
	}
}

// What doesn't belong is refused in the protocol's own way, and the server goes on.
func TestRefusals(t *testing.T) {
	e := ready(t, map[string]string{"main.cluster.hcl": small}, nil)
	e.open("main.cluster.hcl", small)
	refused := func(what string, m message, code int) {
		t.Helper()
		if m.Error == nil || m.Error.Code != code || m.Error.Message == "" {
			t.Errorf("%s: %+v %+v", what, m, m.Error)
		}
	}
	refused("an unknown method", e.call("textDocument/juggle", map[string]any{}), -32601)
	refused("an unknown request that may be ignored", e.call("$/juggle", map[string]any{}), -32601)
	refused("initialize again", e.call("initialize", map[string]any{}), -32600)
	refused("a file outside", e.call("textDocument/hover", map[string]any{"textDocument": map[string]any{"uri": "file:///etc/x.cluster.hcl"}, "position": position{}}), -32602)
	refused("a file that climbs out", e.call("textDocument/hover", map[string]any{"textDocument": map[string]any{"uri": e.uri("../x.cluster.hcl")}, "position": position{}}), -32602)
	refused("no file", e.call("textDocument/hover", map[string]any{"textDocument": map[string]any{"uri": "untitled:x"}, "position": position{}}), -32602)
	refused("not open", e.call("textDocument/hover", e.at("other.cluster.hcl", position{})), -32602)
	refused("no parameters", e.call("textDocument/hover", nil), -32602)
	refused("wrong parameters", e.call("textDocument/hover", map[string]any{"textDocument": 5}), -32602)
	refused("a negative line", e.call("textDocument/hover", map[string]any{"textDocument": map[string]any{"uri": e.uri("main.cluster.hcl")}, "position": map[string]any{"line": -1, "character": 0}}), -32602)
	e.notify("textDocument/juggle", map[string]any{}) // of a notification nothing is said
	e.notify("textDocument/didChange", map[string]any{"textDocument": map[string]any{"uri": e.uri("never.cluster.hcl"), "version": 3}, "contentChanges": []any{}})
	e.raw(`{"jsonrpc": "2.0", "id": 77, "method":`)
	for {
		if m := e.read(); m.Error != nil {
			if m.Error.Code != -32700 || m.ID != nil {
				t.Errorf("what is no JSON: %+v", m.Error)
			}
			break
		}
	}
	for _, text := range []string{`{}`, `[]`, `null`, `5`, `{"jsonrpc": "1.0", "method": "initialized"}`, `{"jsonrpc": "2.0", "method": "initialized", "params": 5}`, `{"jsonrpc": "2.0", "id": {}}`} {
		e.raw(text)
		for {
			if m := e.read(); m.Error != nil {
				if m.Error.Code != -32600 || m.ID != nil {
					t.Errorf("%s: %+v", text, m.Error)
				}
				break
			}
		}
	}
	e.raw(`{"jsonrpc": "2.0", "id": 78}`)
	refused("no method", e.answer(78), -32600)
	// Past the end of a line and of the text is their end.
	if m := e.call("textDocument/hover", e.at("main.cluster.hcl", position{1 << 30, 1 << 30})); m.Error != nil {
		t.Errorf("far outside of the text: %+v", m.Error)
	}
	// A frame that can't be read ends the connection, with words.
	if _, err := fmt.Fprintf(e.in, "Content-Length: 99999999999999\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-e.ended:
		if err == nil || !strings.Contains(err.Error(), "length") {
			t.Errorf("the end: %v", err)
		}
	case <-time.After(patience):
		t.Error("the server doesn't end")
	}
}

func TestGone(t *testing.T) {
	e := ready(t, nil, nil)
	_ = e.in.Close()
	select {
	case err := <-e.ended:
		if !errors.Is(err, ErrNoShutdown) {
			t.Errorf("the end: %v", err)
		}
	case <-time.After(patience):
		t.Error("the server doesn't end")
	}
}
