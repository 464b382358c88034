package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// What docs/ci.md has its readers copy, with a forge that the test plays and a
// cluster that is real.
func TestCIRecipeGitHub(t *testing.T) { testCI(t, true) }
func TestCIRecipeGitLab(t *testing.T) { testCI(t, false) }

func testCI(t *testing.T, github bool) {
	for _, needed := range []string{"git", "bash", "curl", "jq"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Skip(needed + " is not installed")
		}
	}
	c := newCI(t, github)
	l, f := c.lab, c.forge
	artifact := "cluster.plan"
	if github {
		artifact = "cluster-plan"
	}
	first := l.state().Serial

	// A pull request, corrected once: one comment, with today's plan.
	pr := 1
	c.comment(pr, "someone", "<!-- clusterplan sha256="+strings.Repeat("0", 64)+" run=1 job=1 tree=0 -->")
	c.branch(pr, map[string][2]string{"main.cluster.hcl": {`delay = "5s"`, `delay = "6s"`}})
	c.passes(f.start("check", c.planned, pr))
	c.passes(f.start("plan", c.planned, pr))
	c.says(pr, "What the merge changes", c.planned, "delay", `"5s" -> "6s"`, "0 to add, 1 to change")
	c.branch(pr, map[string][2]string{"main.cluster.hcl": {"node \"n3\" {", "node \"n4\" {\n  provider = local\n}\n\nnode \"n3\" {"}})
	plan := f.start("plan", c.planned, pr)
	c.passes(plan)
	c.says(pr, "What the merge changes", c.planned, "+ node.n4", "1 to add", fmt.Sprintf("%x", sha256.Sum256(f.artifacts[plan.run][artifact])))
	if text := c.mine(pr); strings.Contains(text, "Saved to") || strings.Contains(text, "\n```") {
		t.Errorf("the comment: %s", text)
	}
	if l.state().Serial != first {
		t.Fatal("a plan has changed the state")
	}

	// Not that file; not that commit; then exactly that.
	reviewed := f.artifacts[plan.run][artifact]
	f.artifacts[plan.run][artifact] = append([]byte(nil), reviewed[:len(reviewed)-1]...)
	merged := c.merge(pr)
	c.refuses(f.start("apply", merged, 0), 1, "is not the one that the comment")
	f.artifacts[plan.run][artifact] = reviewed
	c.refuses(f.start("apply", c.push("README", "by no pull request"), 0), 1, "no plan of it was reviewed")
	f.merged[c.push("README", "in between")] = pr
	c.refuses(f.start("apply", c.head("main"), 0), 1, "Something else was merged")
	store, err := localstore.Open(localstore.DefaultPath(l.dir), localstore.Options{Keys: l.keys})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := store.Lock(t.Context(), statefile.LockRequest{Who: "anna@desk", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	c.refuses(f.start("apply", merged, 0), 4, "anna@desk", "Run this job again: the plan is still good")
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if l.state().Serial != first {
		t.Fatal("what was refused has changed the state")
	}
	c.passes(f.start("apply", merged, 0))
	if got := git(t, filepath.Dir(l.dir), "rev-parse", "HEAD"); got != merged {
		t.Errorf("the clone is at %s, not at %s", got, merged)
	}
	l.must(0, "log", "--last", "1").wants(t, c.planned[:12], "+1 ~")
	l.up(4, 4)
	l.settled()
	if all := l.of("n4"); len(all) == 0 {
		t.Error("the job's end is n4's")
	} else {
		for _, p := range all {
			if env, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ"); strings.Contains(string(env), token) ||
				strings.Contains(string(env), f.key) || strings.Contains(string(env), "RUNNER_TRACKING_ID") {
				t.Errorf("%s has the job's environment: %q", p.args, env)
			}
		}
	}

	// What a reviewer is to be kept from merging.
	git(t, c.dev, "reset", "-q", "--hard", merged)
	git(t, c.dev, "push", "-qf", "origin", "HEAD:main")
	pr = 2
	c.branch(pr, map[string][2]string{"checks.cluster.hcl": {`"5s"`, `"500ms"`}, "failover.scenario.hcl": {`"4s"`, `"9ms"`}})
	check := f.start("check", c.planned, pr)
	c.fails(check, 1, "n1 is lost", "9ms")
	if junit := string(f.artifacts[check.run]["scenarios"]); !strings.Contains(junit, "<failure") || !strings.Contains(junit, "failover.scenario.hcl") {
		t.Errorf("JUnit: %s", junit)
	}
	c.fails(f.start("plan", c.planned, pr), 3, "Broken guarantee")
	c.says(pr, "A guarantee would be broken", "soon", "longer than 500ms")
	c.refuses(f.start("apply", c.merge(pr), 0), 1, "has no comment with a plan that could be made")
	git(t, c.dev, "reset", "-q", "--hard", merged)
	git(t, c.dev, "push", "-qf", "origin", "HEAD:main")
	pr = 3
	c.branch(pr, map[string][2]string{"checks.cluster.hcl": {"  groups ", "groups "}})
	c.fails(f.start("check", c.planned, pr), 3, "checks.cluster.hcl")

	// The world changes between review and merge; the way on is a plan of today.
	git(t, c.dev, "checkout", "-q", "main")
	pr = 4
	c.branch(pr, map[string][2]string{"main.cluster.hcl": {`delay = "6s"`, `delay = "7s"`}})
	c.passes(f.start("plan", c.planned, pr))
	c.edit(l.dir, "main.cluster.hcl", `delay = "6s"`, `delay = "8s"`)
	l.apply()
	git(t, l.dir, "checkout", "-q", "--", ".")
	was := l.state().Serial
	c.refuses(f.start("apply", c.merge(pr), 0), 5, "The plan is stale", "not any more as it was when the plan was reviewed. Plan again")
	if now := l.state().Serial; now != was {
		t.Errorf("a stale plan was applied: serial %d, then %d", was, now)
	}
	pr = 5
	c.branch(pr, nil)
	c.passes(f.start("plan", c.planned, pr))
	c.says(pr, `"8s" -> "7s"`)
	c.passes(f.start("apply", c.merge(pr), 0))
	l.settled()
	l.must(0, "destroy", "--auto-approve")
	if left := l.processes(); len(left) > 0 {
		t.Errorf("destroy leaves processes: %v", left)
	}
}

// ci is a team with a cluster, whose definition goes through a forge.
type ci struct {
	*lab
	forge   *forge
	dev     string // a developer's clone
	planned string // the commit that a pull request's jobs run for
	github  bool
}

func newCI(t *testing.T, github bool) *ci {
	t.Helper()
	l := newLab(t)
	l.patient()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	clone := filepath.Dir(l.dir)
	f := &forge{t: t, job: gitlabJob, origin: t.TempDir(), bin: t.TempDir(), key: id.String(), merged: map[string]int{}, artifacts: map[string]map[string][]byte{},
		settings: map[string]string{"CLONE": clone, "DIR": filepath.Base(l.dir), "WAIT": "1s"}}
	if github {
		f.job = githubJob
	}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	key := filepath.Join(t.TempDir(), "key")
	for file, text := range map[string]string{
		key:                           f.key + "\n",
		filepath.Join(f.bin, "gh"):    gh,
		l.dir + "/auto.vars.hcl":      "address = \"" + l.address + "\"\n",
		l.dir + "/state.cluster.hcl":  "clusterplan {\n  encryption {\n    recipients = [\"" + id.Recipient().String() + "\"]\n  }\n}\n",
		l.dir + "/checks.cluster.hcl": "guarantee \"soon\" {\n  groups       = [group.web]\n  survives     = { nodes = 1 }\n  max_downtime = \"5s\"\n}\n",
		l.dir + "/failover.scenario.hcl": "scenario \"n1 is lost\" {\n  step {\n    lose = [node.n1]\n\n    expect {\n      group        = group.web\n" +
			"      owner        = node.n2\n      max_downtime = \"4s\"\n    }\n  }\n}\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l.env = []string{seal.EnvIdentityFile + "=" + key}
	if l.keys, err = seal.New(seal.Config{Recipients: []string{id.Recipient().String()}, IdentityFile: key}); err != nil {
		t.Fatal(err)
	}
	c := &ci{lab: l, forge: f, dev: t.TempDir(), github: github}
	git(t, f.origin, "init", "-q", "--bare", "-b", "main")
	git(t, f.origin, "config", "uploadpack.allowAnySHA1InWant", "true")
	git(t, clone, "init", "-q", "-b", "main")
	git(t, clone, "add", ".")
	git(t, clone, "commit", "-qm", "first")
	git(t, clone, "remote", "add", "origin", f.origin)
	git(t, clone, "push", "-q", "origin", "main")
	git(t, c.dev, "clone", "-q", f.origin, ".")
	l.apply()
	return c
}

// branch adds a commit to a pull request's branch; nil: an empty one. Its jobs run
// for the commit that the forge has them run for: GitHub's is the merge to be.
func (c *ci) branch(pr int, edits map[string][2]string) {
	c.t.Helper()
	name := fmt.Sprintf("pr%d", pr)
	if git(c.t, c.dev, "branch", "--list", name) == "" {
		git(c.t, c.dev, "branch", "-q", name, "origin/main")
	}
	git(c.t, c.dev, "checkout", "-q", name)
	for file, e := range edits {
		c.edit(filepath.Join(c.dev, filepath.Base(c.dir)), file, e[0], e[1])
	}
	git(c.t, c.dev, "commit", "-qam", "an edit", "--allow-empty")
	c.planned = c.head("HEAD")
	if c.github {
		git(c.t, c.dev, "checkout", "-q", "--detach", "origin/main")
		git(c.t, c.dev, "merge", "-q", "--no-ff", "-m", "merge to be", name)
		c.planned = c.head("HEAD")
	}
	git(c.t, c.dev, "push", "-qf", "origin", fmt.Sprintf("HEAD:refs/pull/%d", pr))
}

// merge squashes a pull request into main.
func (c *ci) merge(pr int) string {
	c.t.Helper()
	git(c.t, c.dev, "checkout", "-q", "-B", "main", "origin/main")
	git(c.t, c.dev, "merge", "-q", "--squash", fmt.Sprintf("pr%d", pr))
	git(c.t, c.dev, "commit", "-qm", "squashed", "--allow-empty")
	git(c.t, c.dev, "push", "-q", "origin", "main")
	sha := c.head("main")
	c.forge.merged[sha] = pr
	return sha
}

// push pushes a file to main.
func (c *ci) push(file, text string) string {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dev, file), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	git(c.t, c.dev, "add", file)
	git(c.t, c.dev, "commit", "-qm", text)
	git(c.t, c.dev, "push", "-q", "origin", "main")
	return c.head("main")
}

func (c *ci) head(rev string) string { c.t.Helper(); return git(c.t, c.dev, "rev-parse", rev) }

func (c *ci) edit(dir, file, from, to string) {
	c.t.Helper()
	file = filepath.Join(dir, file)
	data, err := os.ReadFile(file)
	if err != nil || strings.Count(string(data), from) != 1 {
		c.t.Fatalf("%s has %q %d times: %v", file, from, strings.Count(string(data), from), err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(data), from, to, 1)), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ci) comment(pr int, author, body string) {
	c.forge.comments = append(c.forge.comments, &note{ID: 100 + len(c.forge.comments), PR: pr, Author: author, Body: body})
}

// mine is the one comment of a pull request that the pipeline wrote.
func (c *ci) mine(pr int) string {
	c.t.Helper()
	var all []string
	for _, n := range c.forge.comments {
		if n.PR == pr && n.Author == bot {
			all = append(all, n.Body)
		}
	}
	if len(all) != 1 {
		c.t.Fatalf("pull request %d has %d comments: %q; calls: %q", pr, len(all), all, c.forge.calls)
	}
	return all[0]
}

func (c *ci) says(pr int, words ...string) {
	c.t.Helper()
	text := c.mine(pr)
	for _, w := range words {
		if !strings.Contains(text, w) {
			c.t.Errorf("the comment does not say %q: %s", w, text)
		}
	}
}

func (c *ci) passes(j *job) {
	c.t.Helper()
	if j.failed {
		c.t.Fatalf("the job has failed with %d: %s", j.code, j.log.String())
	}
}

func (c *ci) fails(j *job, code int, words ...string) {
	c.t.Helper()
	if !j.failed || j.code != code {
		c.t.Fatalf("the job has ended with %d (failed: %v), not with %d: %s", j.code, j.failed, code, j.log.String())
	}
	for _, w := range words {
		if !strings.Contains(j.log.String(), w) {
			c.t.Errorf("the job does not say %q: %s", w, j.log.String())
		}
	}
}

func (c *ci) refuses(j *job, code int, words ...string) {
	c.t.Helper()
	c.fails(j, code, append(words, "Nothing was applied")...)
}

func gitEnv() []string {
	return []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.com"}
}

// git runs git, as nobody in particular.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), gitEnv()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
