package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/command"
)

type help struct{ name, text string }

// helps are the helps of all commands that do something, as users get them.
func helps(t *testing.T) []help {
	t.Helper()
	var all []help
	for _, name := range []string{"init", "validate", "fmt", "plan", "apply", "destroy", "show", "output", "console", "graph", "simulate", "doctor", "status", "events", "logs",
		"move", "online", "offline", "pause", "drain", "resume", "state list", "state show", "state mv", "state rm", "state pull", "state push", "force-unlock", "agent", "demo web", "demo worker",
		"help", "version", "completion", "schema", "lsp",
		"lab cut", "lab isolate", "lab loss", "lab heal", "lab status", "lab exec", "lab kill", "lab hang", "lab wake"} {
		var out, errs bytes.Buffer
		if code := command.Main(append(strings.Fields(name), "--help"), strings.NewReader(""), &out, &errs); code != 0 || errs.Len() > 0 {
			t.Errorf("%s --help: exit %d, %s", name, code, errs.String())
		}
		if !strings.Contains(out.String(), "clusterplan "+name) {
			t.Errorf("%s --help tells of something else:\n%s", name, out.String())
		}
		all = append(all, help{name, out.String()})
	}
	return all
}
