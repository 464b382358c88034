package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A minute for each mutation, of the simulation's own processor time: what
// finds it takes a second or two for most.
var perMutation = flag.Duration("cpu", time.Minute, "how long the simulation looks for each mutation, in its processor time")

// mutation is a rule of the product that is broken on purpose: in a file, a text
// that stands there exactly once is replaced by another.
type mutation struct {
	name  string
	edits []edit
	hint  string // what finds it soon: the simulation's flags
	test  string // what finds it instead of the simulation: a package's test, as go test's arguments
}

type edit struct{ file, old, new string }

// Every mutation fits the source as it is: a moment's check for whoever changes a rule.
func TestMutationsFit(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) { m.overlay(t) })
	}
}

// Each mutation is found by the invariants within a minute. They are patches of
// the source, laid over it for one build of the simulation, so that the product
// has no switch for them; one whose text is gone fails as well.
func TestMutations(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command: each mutation is a build of its own")
	}
	if testing.Short() {
		t.Skip("builds and runs the simulation once for each mutation")
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			if m.test != "" {
				m.failsTest(t)
				return
			}
			bin := m.build(t)
			args := append(strings.Fields(m.hint), "--cpu", perMutation.String(), "--json", "--whole")
			cmd := exec.Command(bin, args...)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var out struct {
				Runs, Steps, Faults int
				Seed                uint64
				Violation           string
			}
			if bad := json.Unmarshal(stdout.Bytes(), &out); bad != nil {
				if strings.Contains(stderr.String(), "panic: ") {
					t.Logf("found: it panics: %s", line(stderr.String(), "panic: "))
					return
				}
				t.Fatalf("the simulation: %v, %v\n%s", err, bad, stderr.String())
			}
			used := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Round(10 * time.Millisecond)
			if out.Violation == "" {
				t.Fatalf("%s: not found in %d runs, %d steps, %d faults, %v", m.name, out.Runs, out.Steps, out.Faults, used)
			}
			t.Logf("%s: found in %v, %d runs, %d steps, %d faults (seed %d): %s", m.name, used, out.Runs, out.Steps, out.Faults, out.Seed, out.Violation)
		})
	}
}

func line(text, with string) string {
	for _, l := range strings.Split(text, "\n") {
		if strings.Contains(l, with) {
			return l
		}
	}
	return ""
}

// failsTest runs the test that is to find the mutation.
func (m *mutation) failsTest(t *testing.T) {
	root, list := m.overlay(t)
	cmd := exec.Command("go", append([]string{"test", "-overlay", list}, strings.Fields(m.test)...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		t.Fatalf("%s: go test %s did not find it:\n%s", m.name, m.test, out)
	case !strings.Contains(string(out), "--- FAIL: Test"):
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s: found: %s", m.name, strings.TrimSpace(line(string(out), ".go:")))
}

// build builds the simulation with the mutation in it.
func (m *mutation) build(t *testing.T) string {
	t.Helper()
	root, list := m.overlay(t)
	bin := filepath.Join(t.TempDir(), "sim")
	cmd := exec.Command("go", "build", "-ldflags=-w", "-overlay", list, "-o", bin, "./bench/sim")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// overlay patches the source, and returns the module's folder and the list for go's -overlay.
func (m *mutation) overlay(t *testing.T) (root, list string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	texts := map[string]string{}
	for _, e := range m.edits {
		path := filepath.Join(root, e.file)
		if _, ok := texts[path]; !ok {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(data)
		}
		if n := strings.Count(texts[path], e.old); n != 1 {
			t.Fatalf("%s has %q %d times, not once: the mutation no longer fits the source; mend it here", e.file, e.old, n)
		}
		texts[path] = strings.Replace(texts[path], e.old, e.new, 1)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range texts {
		patched := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay.Replace)))
		if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = patched
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return root, list
}
