package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// commit commits the definition, and returns its hash.
func (l *lab) commit(message string) string {
	l.t.Helper()
	git := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir = l.dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			l.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	git("add", ".")
	git("commit", "-qm", message)
	return git("rev-parse", "HEAD")
}

// Applies are recorded with their revisions; a rollback plans an older one as it
// was applied: objects that moved since keep their ids, variables are that
// apply's, groups that came since are deleted only on demand.
func TestRollback(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	l := newLab(t)
	l.edit("locals {", "variable \"note\" {\n  default = \"none\"\n}\n\nvariable \"token\" {\n  sensitive = true\n  default   = \"\"\n}\n\nlocals {")
	l.edit(`environment = { URL = "http://${var.address}/" }`, `environment = { URL = "http://${var.address}/", NOTE = var.note }`)
	first := l.commit("first")
	token := "--var=token=t0k3n"
	l.must(0, "apply", "--auto-approve", "--var=note=of-the-first", token)
	id := func(a addr.Address) string {
		t.Helper()
		st := l.state()
		if o := st.Find(a); o != nil {
			return o.ID
		}
		return ""
	}
	worker, job, extra := addr.Group("worker", addr.NoKey), addr.Group("job", addr.NoKey), addr.Group("extra", addr.NoKey)
	was := id(worker)

	// The second revision renames a group and has one more.
	l.edit(`group "worker" {`, "moved {\n  from = group.worker\n  to   = group.job\n}\n\ngroup \"extra\" {\n  resource \"generic_application\" \"app\" {\n    command = [\"sleep\", \"1000\"]\n  }\n}\n\ngroup \"job\" {")
	second := l.commit("second")
	l.must(0, "apply", "--auto-approve", "--var=note=of-the-second", token)
	if id(job) != was || id(extra) == "" {
		t.Fatalf("after the second apply: job %s, worker was %s, extra %q", id(job), was, id(extra))
	}
	l.edit("A first cluster", "A changed cluster")
	l.must(0, "apply", "--auto-approve", "--var=note=of-the-second", token)
	l.edit("A changed cluster", "A first cluster")

	var log struct {
		Applies []struct {
			Action     string
			Outcome    string
			Who        string
			Definition struct {
				Git   string
				Dirty bool
			}
			Moved []struct{ From, To string }
		}
	}
	read := func() {
		t.Helper()
		log.Applies = nil
		if err := json.Unmarshal([]byte(l.must(0, "log", "--json").out), &log); err != nil {
			t.Fatal(err)
		}
	}
	read()
	a := log.Applies
	if len(a) != 3 || a[0].Definition.Git != second || !a[0].Definition.Dirty || a[1].Definition.Git != second || a[1].Definition.Dirty || a[2].Definition.Git != first ||
		len(a[1].Moved) != 2 || a[1].Moved[0].From != "group.worker" || a[2].Outcome != "done" || !strings.Contains(a[2].Who, "@") {
		t.Errorf("log: %+v", a)
	}
	l.must(0, "log").wants(t, second[:12]+"+changes", first[:12], "moved 2")

	// What can't be is refused, and nothing is touched.
	l.must(1, "rollback", "HEAD~1", "--auto-approve").wants(t, "give again what these variables had", "token")
	l.must(1, "rollback", "HEAD~1", "--auto-approve", token).wants(t, "would delete groups", "group.extra", "--allow-delete")
	if id(job) != was || id(extra) == "" {
		t.Fatal("a refused rollback has changed the state")
	}

	// A saved rollback is a plan like any other. This one has a sensitive value, and is not saved.
	l.must(1, "rollback", "HEAD~1", "--allow-delete", token, "--out", filepath.Join(t.TempDir(), "back.plan")).wants(t, "sensitive values (var.token)")
	l.must(0, "rollback", "HEAD~1", "--allow-delete", "--auto-approve", token).wants(t, "The definition as of HEAD~1: ", "group.worker")
	if id(worker) != was || id(job) != "" || id(extra) != "" {
		t.Errorf("after the rollback: worker %q, was %s, job %q, extra %q", id(worker), was, id(job), id(extra))
	}
	st := l.state()
	if o := st.Find(worker.WithResource("worker", addr.NoKey)); o == nil || !strings.Contains(string(o.Attributes), "of-the-first") {
		t.Errorf("the resource is %+v", o)
	}
	read()
	if a := log.Applies[0]; a.Action != "rollback" || a.Definition.Git != first || a.Definition.Dirty || a.Outcome != "done" {
		t.Errorf("log: %+v", a)
	}

	// Forward again, with the directory's files; the group keeps its id.
	l.must(0, "apply", "--auto-approve", "--var=note=of-the-second", token)
	if id(job) != was {
		t.Errorf("forward again it is %q, not %s", id(job), was)
	}
	l.served("n1", "n2", "n3")
}
