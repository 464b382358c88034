// Lsp measures how long an editor waits for the language server.
//
//	go run ./bench/lsp --lines 5000 --json
//
// starts the server over pipes, in the protocol's own framing, opens a
// definition of that many lines in one file (or --files), and types. It prints
// lines, objects and, for each kind of keystroke, the median and the 95th
// percentile of the milliseconds from sending it to the answer:
//
//	completion    a letter, and what can stand behind it
//	diagnostics   a letter of a text; until its diagnostics are there
//	broken        the same where the file has a syntax error, as it has
//	              half of the time
//	hover         what is under the cursor
//
// best_ms is the shortest: what it takes when nothing else wants the processor.
// Each keystroke waits for the answer to the one before. cpu_ms is user and
// system time for each keystroke of diagnostics, all cores together: on a
// machine that has other work to do, it tells more than the time on the wall.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/burst"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/lsp"
)

func main() {
	lines := flag.Int("lines", 5000, "how long the definition is")
	files := flag.Int("files", 1, "in how many files; the first is typed in")
	keys := flag.Int("keystrokes", 100, "of each kind")
	asJSON := flag.Bool("json", false, "print one JSON object")
	flag.Parse()
	burst.Begin(burst.Floor) // as the command does
	out, err := run(*lines, max(1, *files), max(2, *keys))
	if err != nil {
		fmt.Fprintln(os.Stderr, "lsp:", err)
		os.Exit(1)
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(out)
	} else {
		_, err = fmt.Printf("%d lines, %d objects: median completion %.1f ms, diagnostics %.1f ms (%.1f ms of CPU), with a syntax error %.1f ms, hover %.1f ms\n",
			out.Lines, out.Objects, out.Completion.Median, out.Diagnostics.Median, out.CPU, out.Broken.Median, out.Hover.Median)
	}
	if err != nil {
		os.Exit(1)
	}
}

type result struct {
	Lines       int     `json:"lines"`
	Files       int     `json:"files"`
	Objects     int     `json:"objects"`
	Keystrokes  int     `json:"keystrokes"`
	Completion  waited  `json:"completion"`
	Diagnostics waited  `json:"diagnostics"`
	Broken      waited  `json:"broken"`
	Hover       waited  `json:"hover"`
	CPU         float64 `json:"cpu_ms"`
}

type waited struct {
	Median float64 `json:"median_ms"`
	P95    float64 `json:"p95_ms"`
	Best   float64 `json:"best_ms"`
}

func summary(list []time.Duration) waited {
	slices.Sort(list)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return waited{ms(list[len(list)/2]), ms(list[len(list)*95/100]), ms(list[0])}
}

// definition is a cluster with as many groups as make that many lines. The
// first line is the one that is typed in.
func definition(lines, files int) (texts []string, objects int) {
	const each = 17
	parts := make([]strings.Builder, files)
	parts[0].WriteString("locals {\n  about = \"\"\n  owner = [\n  ]\n}\n\ncluster \"bench\" {\n  quorum {\n    model = \"majority_node_set\"\n  }\n}\n\n")
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(&parts[0], "node \"n%d\" {\n  provider = local\n}\n\n", i)
	}
	objects = 4
	for i := range (lines - 24) / each {
		fmt.Fprintf(&parts[i*files/max(1, (lines-24)/each)], `group "tenant%d" {
  description      = "Tenant %d: ${local.about}"
  preferred_owners = [node.n1, node.n2]
  failback {
    mode  = "immediate"
    delay = "5s"
  }
  resource "ip_address" "vip" {
    address = "127.99.%d.%d"
  }
  resource "generic_application" "server" {
    command     = ["web", "--tenant", "%d"]
    environment = { TENANT = "%d" }
    depends_on  = [resource.vip]
  }
}

`, i, i, i/250, i%250+1, i, i)
		objects += 3
	}
	for i := range parts {
		texts = append(texts, parts[i].String())
	}
	return texts, objects
}

func run(lines, files, keys int) (*result, error) {
	dir, err := os.MkdirTemp("", "bench-lsp-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	texts, objects := definition(lines, files)
	out := &result{Files: files, Objects: objects, Keystrokes: keys}
	for i, text := range texts {
		out.Lines += strings.Count(text, "\n")
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("part%03d.cluster.hcl", i)), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	toServer, in := io.Pipe()
	from, fromServer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- lsp.Serve(context.Background(), lsp.Config{Language: lang.Options{Providers: map[string]spec.Schema{"local": {Name: "local"}}}}, toServer, fromServer)
	}()
	e := &editor{in: in, out: bufio.NewReader(from), uri: "file://" + filepath.Join(dir, "part000.cluster.hcl")}
	if err := e.measure(out, "file://"+dir, texts[0]); err != nil {
		return nil, err
	}
	return out, <-ended
}

func (e *editor) measure(out *result, root, text string) error {
	if _, err := e.call("initialize", obj{"rootUri": root, "capabilities": obj{}}); err != nil {
		return err
	}
	if err := e.send(obj{"method": "initialized", "params": obj{}}); err != nil {
		return err
	}
	err := e.send(obj{"method": "textDocument/didOpen", "params": obj{"textDocument": obj{"uri": e.uri, "version": 1, "text": text}}})
	if err != nil {
		return err
	}
	e.version = 1
	if n, err := e.diagnosed(); err != nil || n > 0 {
		return errors.Join(err, fmt.Errorf("the definition has %d errors", n))
	}
	about := strings.Index(text, `about = "`) + len(`about = "`) - strings.Index(text, "\n") - 1
	var times [4][]time.Duration
	var before syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		return err
	}
	for i := range out.Keystrokes { // a letter of a text
		start := time.Now()
		if err := e.typed(1, about+i, 0, "x"); err != nil {
			return err
		}
		if n, err := e.diagnosed(); err != nil || n != 0 {
			return errors.Join(err, fmt.Errorf("%d errors while a text was typed", n))
		}
		times[0] = append(times[0], time.Since(start))
	}
	var after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		return err
	}
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	out.CPU = float64(cpu.Microseconds()) / 1000 / float64(out.Keystrokes)
	word := "group.tenant"
	if err := e.typed(3, 0, 0, "    "); err != nil {
		return err
	}
	for i := range out.Keystrokes { // a reference in a list, letter by letter
		at := i % len(word)
		if at == 0 {
			if err := e.typed(3, 4, min(i, len(word)), ""); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := e.typed(3, 4+at, 0, word[at:at+1]); err != nil {
			return err
		}
		raw, err := e.call("textDocument/completion", obj{"textDocument": obj{"uri": e.uri}, "position": obj{"line": 3, "character": 5 + at}})
		if err != nil {
			return err
		}
		times[1] = append(times[1], time.Since(start))
		if !bytes.Contains(raw, []byte(`"label":"`)) {
			return fmt.Errorf("nothing is offered behind %q", word[:at+1])
		}
	}
	for i := range out.Keystrokes { // behind the list stands a bracket too many
		start := time.Now()
		if err := e.typed(3, 0, 0, "]"); err != nil {
			return err
		}
		if n, err := e.diagnosed(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("no error at keystroke %d of a broken text", i))
		}
		times[2] = append(times[2], time.Since(start))
	}
	for range out.Keystrokes {
		start := time.Now()
		if _, err := e.call("textDocument/hover", obj{"textDocument": obj{"uri": e.uri}, "position": obj{"line": 1, "character": 4}}); err != nil {
			return err
		}
		times[3] = append(times[3], time.Since(start))
	}
	out.Diagnostics, out.Completion, out.Broken, out.Hover = summary(times[0]), summary(times[1]), summary(times[2]), summary(times[3])
	if _, err := e.call("shutdown", nil); err != nil {
		return err
	}
	return e.send(obj{"method": "exit"})
}

type obj map[string]any

// editor speaks the protocol.
type editor struct {
	in      io.Writer
	out     *bufio.Reader
	uri     string
	version int
	id      int
}

func (e *editor) send(m obj) error {
	m["jsonrpc"] = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.in, "Content-Length: %d\r\n\r\n%s", len(b), b)
	return err
}

// typed replaces some characters of a line.
func (e *editor) typed(line, at, remove int, text string) error {
	e.version++
	return e.send(obj{"method": "textDocument/didChange", "params": obj{
		"textDocument":   obj{"uri": e.uri, "version": e.version},
		"contentChanges": []obj{{"range": obj{"start": obj{"line": line, "character": at}, "end": obj{"line": line, "character": at + remove}}, "text": text}}}})
}

type message struct {
	ID     *int            `json:"id"`
	Method string          `json:"method"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
	Params struct {
		URI         string            `json:"uri"`
		Version     int               `json:"version"`
		Diagnostics []json.RawMessage `json:"diagnostics"`
	} `json:"params"`
}

func (e *editor) read() (m message, err error) {
	size := 0
	for {
		line, err := e.out.ReadString('\n')
		if err != nil {
			return m, err
		}
		if line = strings.TrimSpace(line); line == "" {
			break
		}
		if v, ok := strings.CutPrefix(line, "Content-Length:"); ok {
			if size, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return m, err
			}
		}
	}
	b := make([]byte, size)
	if _, err = io.ReadFull(e.out, b); err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

func (e *editor) call(method string, params any) (json.RawMessage, error) {
	e.id++
	m := obj{"id": e.id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if err := e.send(m); err != nil {
		return nil, err
	}
	for {
		m, err := e.read()
		if err != nil {
			return nil, err
		}
		if m.ID != nil && *m.ID == e.id {
			if len(m.Error) > 0 {
				return nil, fmt.Errorf("%s: %s", method, m.Error)
			}
			return m.Result, nil
		}
	}
}

// diagnosed waits for the diagnostics of the newest version, and counts them.
func (e *editor) diagnosed() (int, error) {
	for {
		m, err := e.read()
		if err != nil {
			return 0, err
		}
		if m.Method == "textDocument/publishDiagnostics" && m.Params.URI == e.uri && m.Params.Version == e.version {
			return len(m.Params.Diagnostics), nil
		}
	}
}
