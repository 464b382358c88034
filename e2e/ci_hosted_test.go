package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/internal/gittest"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// What docs/ci.md says for a runner that brings nothing along and keeps nothing:
// each job has a home and a clone of its own, and gets to hosts behind another one
// and to a state in git by the page's shell.
func TestCIHosted(t *testing.T) {
	l, hosts := sshHosts(t)
	var page struct {
		Jobs struct {
			Plan struct {
				Env   map[string]string
				Steps []struct {
					Name, Run string
					Env       map[string]string
				}
			}
		}
	}
	recipe(t, "On a hosted runner", &page)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		check(err)
		return strings.TrimSpace(string(text))
	}
	me, err := user.Current()
	check(err)
	id, err := age.GenerateX25519Identity()
	check(err)

	// The forge, which the runner reaches and the hosts do not.
	origin := gittest.Bare(t, "shop")
	backend := gittest.HTTP(t, origin)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "x-access-token" || password != token {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	check(srv.Listener.Close())
	check(netlab.Do(l.namespace, func() (err error) {
		srv.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	srv.Start()
	defer srv.Close()
	forge := srv.URL + "/shop.git"
	check(os.WriteFile(filepath.Join(l.dir, "state.cluster.hcl"), []byte("clusterplan {\n  encryption {\n    recipients = [\""+id.Recipient().String()+
		"\"]\n  }\n\n  backend \"git\" {\n    repository = \""+forge+"\"\n    ref        = \"shop\"\n  }\n}\n"), 0o644))
	main := filepath.Join(l.dir, "main.cluster.hcl")
	text := strings.Replace(read(main), `provider "ssh" {`, "provider \"ssh\" {\n  jump_hosts = [\"root@10.77.0.2\"]", 1)
	check(os.WriteFile(main, []byte(text+"\n"), 0o644))
	work := filepath.Dir(l.dir)
	git(t, work, "init", "-q", "-b", "main")
	git(t, work, "add", ".")
	git(t, work, "commit", "-qm", "first")
	git(t, work, "push", "-q", origin, "main")

	known := map[string]string{"secrets.CLUSTERPLAN_SSH_KEY": read(hosts.KeyFile()), "vars.CLUSTERPLAN_KNOWN_HOSTS": read(hosts.KnownHosts()),
		"secrets.CLUSTERPLAN_AGE_KEY": id.String(), "github.token": token}
	expressions := regexp.MustCompile(`\$\{\{ *([^ ]+) *\}\}`)
	plan := filepath.Join(t.TempDir(), "cluster.plan")
	job := func(code int, script string) string {
		t.Helper()
		home, clone, temp := t.TempDir(), t.TempDir(), t.TempDir()
		git(t, clone, "clone", "-q", "-b", "main", origin, ".")
		known["github.workspace"], known["runner.temp"] = clone, temp
		env := append(os.Environ(), gitEnv()...)
		env = append(env, "HOME="+me.HomeDir, "SSH_AUTH_SOCK=", "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "RUNNER_TEMP="+temp, "CLONE="+clone, "DIR="+filepath.Base(l.dir),
			"NO_COLOR=1", "CLUSTERPLAN_VAR_address=10.77.0.100/24", "PLAN="+plan)
		set := func(vars map[string]string) {
			for name, value := range vars {
				env = append(env, name+"="+expressions.ReplaceAllStringFunc(value, func(e string) string {
					value, ok := known[expressions.FindStringSubmatch(e)[1]]
					if !ok {
						t.Fatalf("the page asks for %s", e)
					}
					return value
				}))
			}
		}
		set(page.Jobs.Plan.Env)
		for _, step := range page.Jobs.Plan.Steps {
			if step.Run != "" {
				set(step.Env)
				script = step.Run + "\n" + script
			}
		}
		// As OpenSSH, who asks a host knows its own home by the system's list of users.
		cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", `mount --bind "$1" "$2" && exec bash --noprofile --norc -eo pipefail -c "$3"`, "sh", home, me.HomeDir, script)
		cmd.Dir, cmd.Env = clone, env
		var out screen
		cmd.Stdout, cmd.Stderr = &out, &out
		check(netlab.Start(l.namespace, cmd))
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("the job has ended with %d, not with %d:\n%s", got, code, out.String())
		}
		for name, secret := range known {
			if strings.Contains(out.String(), secret) && (strings.HasPrefix(name, "secrets.") || name == "github.token") {
				t.Errorf("%s is in the log", name)
			}
		}
		return out.String()
	}
	job(2, `clusterplan plan --ref HEAD --detailed-exitcode --input=false --out "$PLAN" "$CLONE/$DIR"`)
	job(0, `clusterplan apply --input=false "$PLAN"`)
	l.until("the address answers", func() (bool, string) { got := l.asks(); return got == "n1", got })
	job(0, `clusterplan plan --detailed-exitcode --input=false "$CLONE/$DIR"`)
	job(0, `clusterplan destroy --auto-approve --input=false "$CLONE/$DIR"`)
}
