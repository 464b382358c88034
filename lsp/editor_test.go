package lsp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// patience is how long a test waits for what has to come on a busy machine.
const patience = 60 * time.Second

var testLanguage = lang.Options{Version: "0.1.0", Providers: map[string]spec.Schema{"local": {Name: "local", Doc: "Processes on this machine."}}}

// editor speaks to a server over pipes, in the protocol's own framing.
type editor struct {
	t     *testing.T
	in    io.WriteCloser
	said  <-chan answer
	next  int
	dir   string
	ended chan error
	notes []message // notifications that nobody has waited for yet
}

type message struct {
	ID     *int            `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// answer is what the server said, or how it ended.
type answer struct {
	m   message
	err error
}

// hear reads always, as editors do: a server that waits for its words to be read
// reads none of the editor's.
func hear(out io.Reader) <-chan answer {
	ch := make(chan answer, 10_000)
	go func() {
		for r := bufio.NewReader(out); ; {
			m, err := receive(r)
			ch <- answer{m, err}
			if err != nil {
				return
			}
		}
	}()
	return ch
}

// start begins a server in a workspace of these files.
func start(t *testing.T, files map[string]string) *editor {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	toServer, in := io.Pipe()
	out, fromServer := io.Pipe()
	e := &editor{t: t, in: in, said: hear(out), dir: dir, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { e.ended <- Serve(ctx, Config{Language: testLanguage}, toServer, fromServer) }()
	t.Cleanup(func() {
		_ = in.Close()
		_ = out.Close()
		cancel()
	})
	return e
}

func (e *editor) uri(name string) string { return uriOf(filepath.Join(e.dir, name)) }

func (e *editor) raw(text string) {
	e.t.Helper()
	if _, err := fmt.Fprintf(e.in, "Content-Length: %d\r\n\r\n%s", len(text), text); err != nil {
		e.t.Fatal(err)
	}
}

func (e *editor) write(v any) {
	e.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		e.t.Fatal(err)
	}
	e.raw(string(b))
}

// read is the server's next message.
func (e *editor) read() message {
	e.t.Helper()
	select {
	case g := <-e.said:
		if g.err != nil {
			e.t.Fatal(g.err)
		}
		return g.m
	case <-time.After(patience):
		e.t.Fatal("the server says nothing")
		panic("unreachable")
	}
}

func receive(r *bufio.Reader) (m message, err error) {
	size := -1
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return m, err
		}
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		if v, ok := strings.CutPrefix(line, "Content-Length:"); ok {
			if size, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return m, err
			}
		}
	}
	if size < 0 {
		return m, errors.New("no Content-Length")
	}
	b := make([]byte, size)
	if _, err = io.ReadFull(r, b); err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

func (e *editor) notify(method string, params any) {
	e.t.Helper()
	e.write(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
}

// call asks and waits for the answer.
func (e *editor) call(method string, params any) message {
	e.t.Helper()
	e.next++
	id := e.next
	m := map[string]any{"jsonrpc": "2.0", "id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	e.write(m)
	return e.answer(id)
}

func (e *editor) answer(id int) message {
	e.t.Helper()
	for {
		m := e.read()
		if m.Method == "" && m.ID != nil && *m.ID == id {
			return m
		}
		if m.Method != "" && m.ID == nil {
			e.notes = append(e.notes, m)
		}
	}
}

// ask is call for what must succeed.
func ask[T any](e *editor, method string, params any) (out T) {
	e.t.Helper()
	m := e.call(method, params)
	if m.Error != nil {
		e.t.Fatalf("%s: %d %s", method, m.Error.Code, m.Error.Message)
	}
	if err := json.Unmarshal(m.Result, &out); err != nil {
		e.t.Fatalf("%s: %v: %s", method, err, m.Result)
	}
	return out
}

// ready is a started server after initialize; more goes into the capabilities.
func ready(t *testing.T, files map[string]string, more map[string]any) *editor {
	t.Helper()
	e := start(t, files)
	ask[map[string]any](e, "initialize", map[string]any{"rootUri": uriOf(e.dir), "capabilities": more})
	e.notify("initialized", map[string]any{})
	return e
}

func (e *editor) open(name, text string) {
	e.t.Helper()
	e.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": e.uri(name), "languageId": "hcl", "version": 1, "text": text}})
}

// change replaces a document's whole text.
func (e *editor) change(name string, version int, text string) {
	e.t.Helper()
	e.notify("textDocument/didChange", map[string]any{"textDocument": map[string]any{"uri": e.uri(name), "version": version},
		"contentChanges": []any{map[string]any{"text": text}}})
}

// diagnostics waits for those of a version of a document.
func (e *editor) diagnostics(name string, version int32) []diagnostic {
	e.t.Helper()
	uri := e.uri(name)
	for {
		for i, m := range e.notes {
			var p publishParams
			if m.Method != "textDocument/publishDiagnostics" || json.Unmarshal(m.Params, &p) != nil || p.URI != uri {
				continue
			}
			if version == 0 && p.Version == nil || p.Version != nil && *p.Version == version {
				e.notes = append(e.notes[:i:i], e.notes[i+1:]...)
				return p.Diagnostics
			}
		}
		if m := e.read(); m.Method != "" && m.ID == nil {
			e.notes = append(e.notes, m)
		}
	}
}

// where splits a text with a mark ‸ into the text and the mark's position.
func where(t *testing.T, text string) (string, position) {
	t.Helper()
	before, after, ok := strings.Cut(text, "‸")
	if !ok {
		t.Fatal("no mark in the text")
	}
	d := newDocument([]byte(before+after), 1)
	return before + after, d.position(len(before), utf16)
}

func (e *editor) at(name string, p position) map[string]any {
	return map[string]any{"textDocument": map[string]any{"uri": e.uri(name)}, "position": p}
}

// apply carries a workspace edit out, on the texts of files by name.
func (e *editor) apply(files map[string]string, w workspaceEdit) map[string]string {
	e.t.Helper()
	out := map[string]string{}
	for name, text := range files {
		out[name] = text
	}
	all := w.Changes
	if all == nil {
		all = map[string][]textEdit{}
	}
	for _, d := range w.DocumentChanges {
		all[d.TextDocument.URI] = d.Edits
	}
	for uri, list := range all {
		name := strings.TrimPrefix(uri, uriOf(e.dir)+"/")
		text, ok := out[name]
		if !ok {
			e.t.Fatalf("an edit of %s", uri)
		}
		out[name] = applied(text, list)
	}
	return out
}

// applied carries edits out, which all mean the text before them.
func applied(text string, list []textEdit) string {
	d := newDocument([]byte(text), 1)
	for i := len(list) - 1; i >= 0; i-- {
		start, end := d.offset(list[i].Range.Start, utf16), d.offset(list[i].Range.End, utf16)
		text = text[:start] + list[i].NewText + text[end:]
	}
	return text
}
