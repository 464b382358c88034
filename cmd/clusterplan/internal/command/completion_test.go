package command

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The shell is offered what is in the state, and, where a command can mean what
// isn't there yet, what the definition has, also one with a variable that needs
// a value.
func TestCompletion(t *testing.T) {
	dir := definition(t, two, "variable \"image\" {\n  type = string\n}\n")
	ask := func(line string) string {
		t.Helper()
		words := append([]string{"__complete"}, strings.Fields(strings.ReplaceAll(line, "DIR", dir))...)
		code, out := cli(append(words, "")...)
		_, out, _ = strings.Cut(out, "\n")
		out, _, found := strings.Cut(out, ":4\n") // cobra.ShellCompDirectiveNoFileComp
		if code != 0 || !found {
			t.Fatalf("%s: exit code %d, %s", line, code, out)
		}
		got := strings.Fields(out)
		slices.Sort(got)
		return strings.Join(got, " ")
	}
	const defined = "cluster group.web group.web.resource.app node.n1 node.n2"
	for _, state := range []bool{false, true} {
		if state {
			applied(t, dir) // the cluster and its nodes, without the group
		}
		for _, c := range []struct{ line, without, with string }{
			{"plan DIR --target", defined, defined},
			{"apply DIR --replace", defined, defined},
			{"plan DIR --exclude", defined, defined},
			{"import --dir DIR", "group.web node.n1 node.n2", "group.web"},
			{"import --dir DIR group.web", "", ""},
			{"state mv --dir DIR", "", "cluster node.n1 node.n2"},
			{"state mv --dir DIR group.old", defined, "group.web group.web.resource.app"},
			{"state mv --dir DIR node.n1 node.n3", "", ""},
			{"state list --dir DIR node.n1", "", "cluster node.n2"},
			{"state rm --dir DIR node.n1 cluster", "", "node.n2"},
			{"state show --dir DIR", "", "cluster node.n1 node.n2"},
			{"state show --dir DIR node.n1", "", ""},
			{"fence --dir DIR", "n1 n2", "n1 n2"},
			{"offline --dir DIR", "web", "web"},
		} {
			want := c.without
			if state {
				want = c.with
			}
			if got := ask(c.line); got != want {
				t.Errorf("%s (applied: %v): %q, want %q", c.line, state, got, want)
			}
		}
	}
}

// Commands and flags are offered by their first letters, flags also with what they
// take, and every shell gets a script that it can read.
func TestCompletionOfCommandsAndFlags(t *testing.T) {
	for line, want := range map[string]string{
		"val":                "validate",
		"state ":             "list",
		"plan --detailed":    "--detailed-exitcode",
		"init --migrate":     "--migrate-state",
		"completion ":        "fish",
		"state show --di":    "--dir",
		"simulate --scenari": "--scenario",
	} {
		words := strings.Split(line, " ")
		code, out := cli(append([]string{"__complete"}, words...)...)
		_, out, _ = strings.Cut(out, "\n")
		if found := slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool { return strings.HasPrefix(l, want) }); code != 0 || !found {
			t.Errorf("%q: exit code %d, no %q in %s", line, code, want, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out := cli("completion", shell)
		if code != 0 || !strings.Contains(out, "__complete") {
			t.Errorf("%s: exit code %d, %.200s", shell, code, out)
		}
		program, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue
		}
		_, script, _ := strings.Cut(out, "\n")
		read := exec.CommandContext(t.Context(), program, "-n")
		read.Stdin = strings.NewReader(script)
		if said, err := read.CombinedOutput(); err != nil {
			t.Errorf("%s can't read its script: %v: %s", shell, err, said)
		}
	}
}
