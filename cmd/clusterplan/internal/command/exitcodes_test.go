package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// two is a cluster of two voters: whoever restarts an agent of it takes the
// quorum away. Breaks is a guarantee that can't hold.
const (
	two = `
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
node "n1" {
  provider = local
}
node "n2" {
  provider = local
}
group "web" {
  resource "generic_application" "app" {
    command = ["sleep", "1000"]
  }
}
`
	breaks = `
guarantee "survives" {
  groups   = [group.web]
  survives = { nodes = 1 }
}
`
	wrong = `
group "web" {
  flavour = 1
}
`
)

// definition makes a directory with a definition.
func definition(t *testing.T, text ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(strings.Join(text, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func held(t *testing.T, dir string) statefile.Lock {
	t.Helper()
	s, err := localstore.Open(localstore.DefaultPath(dir), localstore.Options{Program: Version})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Lock(context.Background(), statefile.LockRequest{Who: "anna@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// applied writes the state of two nodes that run an older program, which a plan
// without a look at them takes for what is there.
func applied(t *testing.T, dir string) {
	t.Helper()
	l := held(t, dir)
	id, err := pki.NewIdentity("c")
	if err != nil {
		t.Fatal(err)
	}
	st := statefile.State{Cluster: &statefile.Cluster{ID: id.ID, Name: id.Name, CACert: string(id.CACert), CAKey: string(id.CAKey), Key: id.KeyText()}}
	st.Objects = append(st.Objects, statefile.Object{Addr: addr.Cluster(), Type: "cluster", Provider: "confdb", ID: id.ID,
		Attributes: json.RawMessage(`{"name":"c","quorum":{"model":"majority_node_set"}}`)})
	for i := 1; i <= 2; i++ {
		name := fmt.Sprintf("n%d", i)
		st.Objects = append(st.Objects, statefile.Object{Addr: addr.Node(name, addr.NoKey), Type: "node", Provider: "local", ID: fmt.Sprintf("00000000000000a%d", i),
			Attributes: json.RawMessage(fmt.Sprintf(`{"name":%q,"provider":"local","role":"member","votes":1,"endpoint":"127.0.0.%d:1","server_id":%d,"program":%q}`, name, 210+i, i, strings.Repeat("ab", 32)))})
	}
	if err := l.Finish(st); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

// Every exit code, and for each neighbours in 1, 130, 4, 5, 6, 3, 2, 0 a command
// line of which both hold.
func TestExitCodes(t *testing.T) {
	saved := func(t *testing.T, dir string, flags ...string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "saved.plan")
		if code, out := cli(append([]string{"plan", "--refresh=false", "--out", file, dir}, flags...)...); code != 0 {
			t.Fatalf("plan --out: %d\n%s", code, out)
		}
		return file
	}
	for _, c := range []struct {
		name string
		code int
		args func(t *testing.T) []string
	}{
		{"0: done", 0, func(t *testing.T) []string { return []string{"plan", definition(t, two)} }},
		{"0: nothing to do", 0, func(t *testing.T) []string {
			return []string{"plan", "--destroy", "--detailed-exitcode", definition(t, two)}
		}},
		{"2: changes", 2, func(t *testing.T) []string { return []string{"plan", "--detailed-exitcode", definition(t, two)} }},
		{"3: a guarantee", 3, func(t *testing.T) []string { return []string{"plan", definition(t, two, breaks)} }},
		{"3: apply refuses", 3, func(t *testing.T) []string { return []string{"apply", "--auto-approve", definition(t, two, breaks)} }},
		{"3: simulate", 3, func(t *testing.T) []string {
			return []string{"simulate", "--refresh=false", "--fail", "n1", definition(t, two, breaks)}
		}},
		{"3: fmt --check", 3, func(t *testing.T) []string { return []string{"fmt", "--check", definition(t, "cluster   \"c\" {}\n")} }},
		{"4: locked", 4, func(t *testing.T) []string {
			dir := definition(t, two)
			l := held(t, dir)
			t.Cleanup(func() { l.Release() })
			return []string{"plan", dir}
		}},
		{"5: stale", 5, func(t *testing.T) []string {
			dir := definition(t, two)
			file := saved(t, dir)
			applied(t, dir)
			return []string{"apply", file}
		}},
		{"6: quorum", 6, func(t *testing.T) []string {
			dir := definition(t, two)
			applied(t, dir)
			return []string{"plan", "--refresh=false", dir}
		}},
		{"6: apply refuses", 6, func(t *testing.T) []string {
			dir := definition(t, two)
			applied(t, dir)
			return []string{"apply", "--auto-approve", "--refresh=false", dir}
		}},
		{"0: allowed to", 0, func(t *testing.T) []string {
			dir := definition(t, two)
			applied(t, dir)
			return []string{"plan", "--refresh=false", "--allow-quorum-loss", dir}
		}},
		{"1: a definition with errors", 1, func(t *testing.T) []string { return []string{"plan", definition(t, two, wrong)} }},
		{"1: an unknown flag", 1, func(t *testing.T) []string { return []string{"plan", "--custard"} }},

		{"3 before 2", 3, func(t *testing.T) []string {
			return []string{"plan", "--detailed-exitcode", definition(t, two, breaks)}
		}},
		{"6 before 3", 6, func(t *testing.T) []string {
			dir := definition(t, two, breaks)
			applied(t, dir)
			return []string{"plan", "--refresh=false", "--detailed-exitcode", dir}
		}},
		{"5 before 6", 5, func(t *testing.T) []string {
			dir := definition(t, two)
			file := saved(t, dir)
			applied(t, dir) // what the file plans would lose the quorum now
			return []string{"apply", file}
		}},
		{"4 before 5", 4, func(t *testing.T) []string {
			dir := definition(t, two)
			file := saved(t, dir)
			applied(t, dir)
			l := held(t, dir)
			t.Cleanup(func() { l.Release() })
			return []string{"apply", file}
		}},
		{"1 before 3", 1, func(t *testing.T) []string {
			return []string{"plan", "--replace", "node.n9", definition(t, two, breaks)}
		}},
		{"1 before 6", 1, func(t *testing.T) []string {
			dir := definition(t, two)
			applied(t, dir)
			return []string{"plan", "--refresh=false", "--replace", "node.n9", dir}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, out := cli(c.args(t)...); code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
		})
	}
}

// cli runs a command line in this process; no terminal to ask on.
func cli(args ...string) (int, string) {
	var out bytes.Buffer
	return Main(args, strings.NewReader(""), &out, &out), fmt.Sprintf("clusterplan %s\n%s", strings.Join(args, " "), out.String())
}

// 130: interrupted while it waits for a lock that somebody holds, which alone
// would be 4.
func TestExitCodeInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) { interrupted(t, sig) })
	}
}

func interrupted(t *testing.T, sig syscall.Signal) {
	// The signal is this process's: it must not end it before Main listens.
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sig)
	defer signal.Stop(ch)
	dir := definition(t, two)
	l := held(t, dir)
	defer l.Release()
	type result struct {
		code int
		out  string
	}
	done := make(chan result)
	go func() {
		code, out := cli("plan", "--lock-timeout", "10m", dir)
		done <- result{code, out}
	}()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(30 * time.Second); ; {
		select {
		case r := <-done:
			if r.code != 130 {
				t.Errorf("exit code %d\n%s", r.code, r.out)
			}
			return
		case <-again.C:
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
		case <-deadline:
			t.Fatal("it goes on waiting")
		}
	}
}
