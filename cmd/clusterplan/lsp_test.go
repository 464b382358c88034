package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The program itself serves an editor: over its stdin and stdout, with an exit
// code at the end.
func TestLanguageServer(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// A module from git: locked, and in the cache.
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for name, text := range map[string]string{
		".clusterplan.lock.hcl":                                   "format = 1\nmodule \"https://127.0.0.1:1/m.git\" {\n  commit = \"" + commit + "\"\n}\n",
		".clusterplan/modules/m-" + commit + "/web/m.cluster.hcl": "variable \"amount\" {\n  type = number\n}\nmodule \"out\" {\n  source = \"../../x\"\n}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "clusterplan")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "lsp", "--stdio")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	r := bufio.NewReader(out)
	send := func(m map[string]any) {
		t.Helper()
		m["jsonrpc"] = "2.0"
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(in, "Content-Length: %d\r\n\r\n%s", len(b), b); err != nil {
			t.Fatal(err)
		}
	}
	// until is the next message that has the text in it.
	until := func(text string) string {
		t.Helper()
		for {
			size := 0
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatalf("waiting for %s: %v", text, err)
				}
				if line = strings.TrimSpace(line); line == "" {
					break
				}
				if v, ok := strings.CutPrefix(line, "Content-Length:"); ok {
					if size, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
						t.Fatal(err)
					}
				}
			}
			b := make([]byte, size)
			if _, err := io.ReadFull(r, b); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), text) {
				return string(b)
			}
		}
	}
	uri := "file://" + dir + "/main.cluster.hcl"
	send(map[string]any{"id": 1, "method": "initialize", "params": map[string]any{"rootUri": "file://" + dir, "capabilities": map[string]any{"general": map[string]any{"positionEncodings": []string{"utf-8"}}}}})
	if m := until(`"id":1`); !strings.Contains(m, `"positionEncoding":"utf-8"`) {
		t.Errorf("initialize: %s", m)
	}
	send(map[string]any{"method": "initialized", "params": map[string]any{}})
	send(map[string]any{"method": "textDocument/didOpen", "params": map[string]any{"textDocument": map[string]any{"uri": uri, "version": 1, "languageId": "hcl",
		"text": "cluster \"c\" {\n  description = \"é\" + nod\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"a\" {\n  provider = local\n}\n"}}})
	if m := until("publishDiagnostics"); !strings.Contains(m, `"start":{"line":1,"character":23}`) { // bytes: é is two
		t.Errorf("diagnostics: %s", m)
	}
	send(map[string]any{"id": 2, "method": "textDocument/completion", "params": map[string]any{"textDocument": map[string]any{"uri": uri}, "position": map[string]any{"line": 7, "character": 13}}})
	if m := until(`"id":2`); !strings.Contains(m, `"label":"local"`) {
		t.Errorf("the program's own providers: %s", m)
	}
	open := func(text string, version int) {
		send(map[string]any{"method": "textDocument/didChange", "params": map[string]any{"textDocument": map[string]any{"uri": uri, "version": version}, "contentChanges": []any{map[string]any{"text": text}}}})
	}
	open("module \"m\" {\n  source = \"git::https://127.0.0.1:1/m.git//web\"\n  amount = \"x\"\n  \n}\n", 2)
	if m := until("leads out of the repository"); !strings.Contains(m, "/web/m.cluster.hcl") {
		t.Errorf("a module from git: %s", m)
	}
	send(map[string]any{"id": 4, "method": "textDocument/completion", "params": map[string]any{"textDocument": map[string]any{"uri": uri}, "position": map[string]any{"line": 3, "character": 2}}})
	if m := until(`"id":4`); !strings.Contains(m, `"label":"depends_on"`) {
		t.Errorf("in a module block: %s", m)
	}
	open("module \"m\" {\n  source = \"git::https://127.0.0.1:1/m.git//web\"\n  \n}\n", 3)
	send(map[string]any{"id": 5, "method": "textDocument/completion", "params": map[string]any{"textDocument": map[string]any{"uri": uri}, "position": map[string]any{"line": 2, "character": 2}}})
	if m := until(`"id":5`); !strings.Contains(m, `"label":"amount"`) {
		t.Errorf("the variables of a module from git: %s", m)
	}
	open("module \"m\" {\n  source = \"git::https://127.0.0.1:1/m.git//web?ref=v1\"\n}\n", 4)
	until("run clusterplan init")
	send(map[string]any{"id": 3, "method": "shutdown"})
	until(`"id":3`)
	send(map[string]any{"method": "exit"})
	if err := cmd.Wait(); err != nil { // stdin is still open
		t.Errorf("the end: %v", err)
	}
}
