package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const secretWord = "hunter2-of-the-bmc"

// fenceScript is a fence agent whose device never answers, and which says on
// its way out what it was told, passwords and all.
const fenceScript = `#!/bin/sh
input=$(cat)
case "$input" in
*action=metadata*) echo '<resource-agent><parameters><parameter name="ip"/><parameter name="password"/><parameter name="plug"/></parameters><actions><action name="off"/><action name="on"/><action name="status"/></actions></resource-agent>'; exit 0;;
esac
echo "no answer from the device, told: $(echo $input)" >&2
exit 1
`

// The owner's processes are all stopped (SIGSTOP), as in a host that hangs. The
// first fence fails and would tell its password; the second ends what is left of
// the node, verified, and the groups go on elsewhere. What no one may see, no one sees.
func TestFence(t *testing.T) {
	l := newLab(t)
	script := filepath.Join(t.TempDir(), "fence_script")
	if err := os.WriteFile(script, []byte(fenceScript), 0o755); err != nil {
		t.Fatal(err)
	}
	l.edit("output \"url\"", fmt.Sprintf(`
variable "bmc" {
  type      = string
  default   = %q
  sensitive = true
}

fence "bmc" {
  agent      = %q
  when       = "always"
  parameters = { ip = "10.0.0.1", password = var.bmc }
}

fence "here" {
  agent = "local"
  level = 2
}

output "url"`, secretWord, script))
	l.edit(`{ URL = "http://${var.address}/" }`, `{ URL = "http://${var.address}/", TOKEN = var.bmc }`)
	plan := l.must(0, "plan")
	plan.wants(t, "fence.bmc", "fence.here")
	shown := []result{plan, l.run("plan", "--json"), l.must(0, "apply", "--auto-approve", "--json")}
	l.settled()
	l.untold(secretWord)
	l.must(1, "plan", "--out", "secret.plan").wants(t, "sensitive")
	other := l.must(2, "plan", "--detailed-exitcode", "--var", "bmc=another")
	other.wants(t, "TOKEN = (sensitive value)", "password", "2 to change")
	l.served("n1")
	l.groupOnline("web", "n1")

	for _, p := range l.of("n1") {
		if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	l.served("n2", "n3")
	l.until("n1 is fenced", func() (bool, string) {
		n := l.node("n1")
		return n.Fenced != nil && n.Fenced.By == "here", fmt.Sprintf("%+v", n)
	})
	if left := l.of("n1"); len(left) > 0 {
		t.Errorf("the fence left %v", left)
	}
	if len(l.of("n2")) == 0 || len(l.of("n3")) == 0 {
		t.Error("the fence ended another node")
	}
	st := l.status()
	if len(st.Fences) != 2 || st.Fences[0].Last == nil || st.Fences[0].Last.OK || st.Fences[1].Last == nil || !st.Fences[1].Last.OK {
		t.Errorf("status of the fences: %+v", st.Fences)
	}
	events := l.must(0, "events")
	events.wants(t, "node n1 is being fenced", "node n1 is off, verified by here")

	// It stays down until it is started again; then it is another life.
	l.apply()
	l.up(3, 3)
	l.settled()

	// By hand, and by a person's word.
	st = l.status()
	down := "n3"
	if st.Leader == down {
		down = "n2"
	}
	l.must(1, "fence", down, "--confirmed-off", "--reason", "so they say").wants(t, "is up")
	l.must(1, "fence", st.Leader).wants(t, "never fences itself")
	l.must(0, "fence", down, "--reason", "it hums").wants(t, "node "+down+" is off, verified by here")
	if left := l.of(down); len(left) > 0 {
		t.Errorf("the fence left %v", left)
	}
	l.must(1, "fence", down, "--confirmed-off").wants(t, "--reason")
	l.must(0, "fence", down, "--confirmed-off", "--reason", "no power").wants(t, "by the word of")

	shown = append(shown, events, l.run("events", "--json"), l.run("status"), l.run("status", "--json"), l.run("show", "--json"), l.run("show"),
		other, l.run("state", "show", "fence.bmc"), l.run("state", "show", "group.worker.resource.worker"), l.run("state", "pull"))
	l.edit(fmt.Sprintf("fence \"bmc\" {\n  agent      = %q\n  when       = \"always\"\n  parameters = { ip = \"10.0.0.1\", password = var.bmc }\n}\n", script), "")
	shown = append(shown, l.run("plan"), l.run("plan", "--json"))
	for _, r := range shown {
		if strings.Contains(r.out+r.stderr, secretWord) {
			t.Errorf("it tells the secret: %s", r)
		}
	}
	logs, _ := filepath.Glob(filepath.Join(l.dir, ".clusterplan", "nodes", "*", "log", "*"))
	for _, log := range logs {
		if data, err := os.ReadFile(log); err == nil && strings.Contains(string(data), secretWord) {
			t.Errorf("%s tells the secret", log)
		}
	}
	l.apply()
	l.settled()
	l.untold(secretWord)
	l.destroyed()
	l.untold(secretWord)
}

// untold: no file of the state's directory has the word in it. The nodes have
// directories of their own.
func (l *lab) untold(word string) {
	l.t.Helper()
	files := 0
	if err := filepath.WalkDir(filepath.Join(l.dir, ".clusterplan"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && (d.Name() == "nodes" || d.Name() == "bin") {
				return fs.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), word) {
			l.t.Errorf("%s tells the secret", path)
		}
		files++
		return err
	}); err != nil || files < 2 {
		l.t.Errorf("%d files, %v", files, err)
	}
}
