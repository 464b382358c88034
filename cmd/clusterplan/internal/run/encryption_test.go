package run

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/statefile/seal"
)

// Who may read the state is what the definition's directory says when a plan file
// is applied: who was taken out since the plan was made does not come back with it.
// What the directory can't say any more the plan file says, and a block with an
// error is refused.
func TestPlanFileKeepsNoOldRecipients(t *testing.T) {
	dir := t.TempDir()
	id := func() *age.X25519Identity {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	old, next := id(), id()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(old.String()+"\n"+next.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(seal.EnvIdentityFile, file)
	t.Setenv(seal.EnvPassphrase, "")
	name := filepath.Join(dir, "main.cluster.hcl")
	define := func(inner string) {
		t.Helper()
		text := "clusterplan {\n  encryption {\n    " + inner + "\n  }\n}\ncluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\n" +
			"variable \"none\" {}\nnode \"n1\" {\n  provider = local\n}\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := func(id *age.X25519Identity) string { return `recipients = ["` + id.Recipient().String() + `"]` }
	define(to(old))
	t.Setenv("CLUSTERPLAN_VAR_none", "x")
	s, err := Open(dir, Options{Version: "0.1.0", Record: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Plan(t.Context(), PlanOptions{NoLock: true})
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "p.plan")
	if err := s.Save(saved, p, PlanOptions{}, "text"); err != nil {
		t.Fatal(err)
	}
	f, err := ReadPlan(saved)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func()
		want *age.X25519Identity // nil: refused
	}{
		{"the same", func() {}, old},
		{"other recipients", func() { define(to(next)) }, next},
		{"an empty block", func() { define("") }, nil},
		{"a part of a block", func() { define(`recipients = ["` + next.Recipient().String() + `", null]`) }, nil},
		{"what can't be read", func() { os.WriteFile(name, []byte("cluster {\n"), 0o600) }, old},
		{"nothing", func() { os.Remove(name) }, old},
	} {
		c.make()
		s, err := OpenPlan(f, Options{Version: "0.1.0"})
		if err != nil {
			t.Fatal(c.name, err)
		}
		lock, err := s.lockToWrite(t.Context(), "apply", 0)
		if c.want == nil {
			if lock != nil || err == nil || !strings.Contains(err.Error(), "Invalid encryption") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(c.name, err)
		}
		lock.Release()
		if got := s.encryption().Recipients; !slices.Equal(got, []string{c.want.Recipient().String()}) {
			t.Errorf("%s: for %v", c.name, got)
		}
		s.Close()
	}
}
