package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	yaml "github.com/zclconf/go-cty-yaml"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// recipe reads the YAML of a recipe in docs/ci.md into v: the block below a heading.
func recipe(t *testing.T, heading string, v any) {
	t.Helper()
	doc, err := os.ReadFile("../docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "\n## "+heading+"\n")
	_, text, ok2 := strings.Cut(text, "\n```yaml\n")
	text, _, ok3 := strings.Cut(text, "\n```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("docs/ci.md has no recipe for %s", heading)
	}
	typ, err := yaml.ImpliedType([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	val, err := yaml.Unmarshal([]byte(text), typ)
	if err != nil {
		t.Fatal(err)
	}
	data, err := ctyjson.Marshal(val, typ)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// forge plays GitHub or GitLab: its API for the recipes' gh and curl, and the
// runner that carries out their jobs.
type forge struct {
	t        *testing.T
	server   *httptest.Server
	origin   string            // bare repository
	settings map[string]string // what a user writes in place of the recipe's CLONE, DIR, WAIT
	key      string            // age identity, the text
	bin      string            // with the gh of the test
	job      func(f *forge, j *job, name string)

	mu        sync.Mutex
	calls     []string
	comments  []*note
	merged    map[string]int               // by commit: which pull request
	artifacts map[string]map[string][]byte // by run: by name
	runs      int
}

type note struct {
	ID     int
	PR     int
	Author string
	Body   string
}

const (
	bot   = "github-actions[bot]" // in GitLab: the token's user
	token = "t0k3n-of-the-forge"
)

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	if r.Header.Get("PRIVATE-TOKEN") != token {
		http.Error(w, "401 Unauthorized", http.StatusUnauthorized)
		return
	}
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	match := func(pattern string) []string {
		return regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(r.Method + " " + r.URL.Path)
	}
	if m := match(`GET /(?:repos/team/shop/issues|projects/7/merge_requests)/(\d+)/(?:comments|notes)`); m != nil {
		list := []any{}
		for _, c := range f.comments {
			if strconv.Itoa(c.PR) == m[1] {
				list = append(list, map[string]any{"id": c.ID, "body": c.Body,
					"user": map[string]any{"login": c.Author}, "author": map[string]any{"username": c.Author}})
			}
		}
		answer(list)
	} else if m := match(`POST /(?:repos/team/shop/issues|projects/7/merge_requests)/(\d+)/(?:comments|notes)`); m != nil {
		pr, _ := strconv.Atoi(m[1])
		f.comments = append(f.comments, &note{ID: 100 + len(f.comments), PR: pr, Author: bot, Body: r.FormValue("body")})
	} else if m := match(`(?:PATCH /repos/team/shop/issues/comments|PUT /projects/7/merge_requests/\d+/notes)/(\d+)`); m != nil {
		at := slices.IndexFunc(f.comments, func(c *note) bool { return strconv.Itoa(c.ID) == m[1] && c.Author == bot })
		if at < 0 {
			http.NotFound(w, r)
			return
		}
		f.comments[at].Body = r.FormValue("body")
	} else if match(`GET /user`) != nil {
		answer(map[string]any{"username": bot})
	} else if m := match(`GET /repos/team/shop/commits/(\w+)/pulls`); m != nil {
		list := []any{map[string]any{"number": 99, "merge_commit_sha": "of-another"}}
		if pr := f.merged[m[1]]; pr > 0 {
			list = append(list, map[string]any{"number": pr, "merge_commit_sha": m[1]})
		}
		answer(list)
	} else if m := match(`GET /projects/7/repository/commits/(\w+)/merge_requests`); m != nil {
		list := []any{map[string]any{"iid": 99, "state": "opened", "sha": m[1]}}
		if pr := f.merged[m[1]]; pr > 0 {
			list = append(list, map[string]any{"iid": pr, "state": "merged", "merge_commit_sha": nil, "squash_commit_sha": m[1], "sha": "of-the-branch"})
		}
		answer(list)
	} else if m := match(`GET /(?:artifacts|projects/7/jobs)/(\d+)/(?:artifacts/)?([\w.-]+)`); m != nil {
		data, ok := f.artifacts[m[1]][m[2]]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	} else {
		http.Error(w, "this forge has no "+r.URL.Path, http.StatusNotFound)
	}
}

// gh is as much of GitHub's command as the recipe calls, and nothing else.
const gh = `#!/usr/bin/env bash
set -eo pipefail
ask() { curl --silent --show-error --fail --header "PRIVATE-TOKEN: $GH_TOKEN" "$@"; }
if [ "$1 $2" = "run download" ]; then
  [ "$4 $5 $6 $8" = "--repo team/shop --name --dir" ] || exit 64
  ask --output "$9/cluster.plan" "$FORGE/artifacts/$3/$7"
  exit
fi
[ "$1" = api ] || exit 64
shift
method=GET jq=. silent= data=()
while [ $# -gt 0 ]; do
  case $1 in
  --paginate) ;;
  --silent) silent=yes ;;
  --method) method=$2; shift ;;
  --jq) jq=$2; shift ;;
  --field) data=(--data-urlencode "${2/=@/@}"); shift ;;
  -*) exit 64 ;;
  *) path=$1 ;;
  esac
  shift
done
out=$(ask --request "$method" "${data[@]}" "$FORGE/$path")
[ -n "$silent" ] || jq -r "$jq" <<<"$out"
`

// job is one run of a job.
type job struct {
	f      *forge
	dir    string // workspace, which a runner empties
	temp   string
	env    []string
	log    strings.Builder
	failed bool
	code   int    // of the step that failed
	run    string // its number
}

// start runs a job for a commit. pr is 0 after a merge.
func (f *forge) start(name, sha string, pr int) *job {
	f.t.Helper()
	f.runs++
	j := &job{f: f, dir: f.t.TempDir(), temp: f.t.TempDir(), run: strconv.Itoa(f.runs)}
	git(f.t, j.dir, "clone", "-q", "--no-checkout", f.origin, ".")
	git(f.t, j.dir, "fetch", "-q", "origin", sha)
	git(f.t, j.dir, "checkout", "-q", "--detach", sha)
	j.env = append(gitEnv(), "HOME="+j.temp, "PATH="+f.bin+":"+filepath.Dir(program)+":"+os.Getenv("PATH"), "FORGE="+f.server.URL,
		"RUNNER_TEMP="+j.temp, "RUNNER_TRACKING_ID=github_1", "GITHUB_SHA="+sha, "GITHUB_REPOSITORY=team/shop", "GITHUB_RUN_ID="+j.run,
		"CI_COMMIT_SHA="+sha, "CI_JOB_ID="+j.run, "CI_PROJECT_ID=7", "CI_API_V4_URL="+f.server.URL, "CI_MERGE_REQUEST_IID="+strconv.Itoa(pr))
	f.job(f, j, name)
	f.t.Logf("%s of %d: failed: %v, exit %d\n%s", name, pr, j.failed, j.code, j.log.String())
	if log := j.log.String(); strings.Contains(log, token) || strings.Contains(log, f.key) {
		f.t.Error("a secret is in the log")
	}
	return j
}

// shell runs a script as the forges' runners do.
func (j *job) shell(script string, env map[string]string) {
	j.f.t.Helper()
	cmd := exec.CommandContext(j.f.t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = j.dir, slices.Clone(j.env)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = &j.log, &j.log
	if err := cmd.Run(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			j.f.t.Fatal(err)
		}
		j.failed, j.code = true, cmd.ProcessState.ExitCode()
	}
}

// keep has the forge keep a file.
func (j *job) keep(name, file string) bool {
	if !filepath.IsAbs(file) {
		file = filepath.Join(j.dir, file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	if j.f.artifacts[j.run] == nil {
		j.f.artifacts[j.run] = map[string][]byte{}
	}
	j.f.artifacts[j.run][name] = data
	return true
}

// set gives the recipe's variables the test's values: each of its settings has to be there.
func (f *forge) set(vars map[string]string) map[string]string {
	f.t.Helper()
	for name, value := range f.settings {
		if vars[name] == "" {
			f.t.Fatalf("the recipe has no setting %s", name)
		}
		vars[name] = value
	}
	return vars
}

var expression = regexp.MustCompile(`\$\{\{ *([^ ]+) *\}\}`)

// githubJob plays GitHub's runner.
func githubJob(f *forge, j *job, name string) {
	f.t.Helper()
	var flow struct {
		Env  map[string]string
		Jobs map[string]struct {
			Steps []struct {
				If, Uses, Run string
				Env           map[string]string
				With          map[string]any
			}
		}
	}
	recipe(f.t, "GitHub Actions", &flow)
	vars := f.set(flow.Env)
	steps := flow.Jobs[name].Steps
	if len(steps) == 0 {
		f.t.Fatalf("the recipe has no job %s", name)
	}
	pr := strings.TrimPrefix(j.env[len(j.env)-1], "CI_MERGE_REQUEST_IID=")
	known := map[string]string{"secrets.CLUSTERPLAN_AGE_KEY": f.key, "github.token": token, "github.event.number": pr, "runner.temp": j.temp}
	expand := func(text string) string {
		return expression.ReplaceAllStringFunc(text, func(e string) string {
			value, ok := known[expression.FindStringSubmatch(e)[1]]
			if !ok {
				f.t.Fatalf("the recipe asks for %s", e)
			}
			return value
		})
	}
	for _, s := range steps {
		if s.If != "" && s.If != "always()" {
			f.t.Fatalf("a step with if: %s", s.If)
		}
		if j.failed && s.If == "" {
			continue
		}
		switch {
		case s.Run != "":
			env := map[string]string{}
			for k, v := range vars {
				env[k] = v
			}
			for k, v := range s.Env {
				env[k] = expand(v)
			}
			if strings.Contains(s.Run, "${{") {
				f.t.Errorf("an expression in a script: text of others would be run: %s", s.Run)
			}
			j.shell(s.Run, env)
		case strings.HasPrefix(s.Uses, "actions/checkout@"):
		case strings.HasPrefix(s.Uses, "actions/upload-artifact@"):
			kept := j.keep(fmt.Sprint(s.With["name"]), expand(fmt.Sprint(s.With["path"])))
			j.failed = j.failed || !kept && s.With["if-no-files-found"] == "error"
		default:
			f.t.Fatalf("a step that nobody plays: %+v", s)
		}
	}
}

// gitlabJob plays GitLab's runner.
func gitlabJob(f *forge, j *job, name string) {
	f.t.Helper()
	type description struct {
		Script    []string
		Artifacts struct {
			Paths   []string
			When    string
			Reports struct{ JUnit string }
		}
	}
	var flow struct {
		Variables map[string]string
		Default   struct {
			BeforeScript []string `json:"before_script"`
		}
		Check, Plan, Apply description
	}
	recipe(f.t, "GitLab CI", &flow)
	vars := f.set(flow.Variables)
	d, ok := map[string]description{"check": flow.Check, "plan": flow.Plan, "apply": flow.Apply}[name]
	if !ok || len(d.Script) == 0 {
		f.t.Fatalf("the recipe has no job %s", name)
	}
	key := filepath.Join(j.temp, "CLUSTERPLAN_AGE_IDENTITY_FILE")
	if err := os.WriteFile(key, []byte(f.key), 0o600); err != nil {
		f.t.Fatal(err)
	}
	vars["CLUSTERPLAN_AGE_IDENTITY_FILE"], vars["CLUSTERPLAN_TOKEN"] = key, token
	j.shell(strings.Join(slices.Concat(flow.Default.BeforeScript, d.Script), "\n"), vars)
	if r := d.Artifacts.Reports.JUnit; r != "" && (!j.failed || d.Artifacts.When == "always") {
		j.keep("scenarios", r)
	}
	for _, p := range d.Artifacts.Paths {
		if !j.failed {
			j.keep(p, p)
		}
	}
}
