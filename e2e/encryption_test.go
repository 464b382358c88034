package e2e

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/statefile/localstore"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// A definition encrypts its state: an apply of it is killed in the middle, the
// next one goes on from the encrypted journal, a plan is saved and applied. At no
// time do the cluster's keys lie anywhere but in its agents' own directories.
func TestEncryptedState(t *testing.T) {
	l := newLab(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.env = []string{seal.EnvIdentityFile + "=" + key}
	block := filepath.Join(l.dir, "encryption.cluster.hcl")
	text := "clusterplan {\n  encryption {\n    recipients = [\"" + id.Recipient().String() + "\"]\n  }\n}\n"
	if err := os.WriteFile(block, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l.before[block] = text
	if l.keys, err = seal.New(seal.Config{Recipients: []string{id.Recipient().String()}, IdentityFile: key}); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, out, stderr := l.command(ctx, "apply", "--auto-approve")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	journal := localstore.DefaultPath(l.dir) + ".journal"
	l.until("an apply in the middle", func() (bool, string) {
		data, _ := os.ReadFile(journal)
		return bytes.Count(data, []byte("\n")) >= 8, out.String() + stderr.String()
	})
	cancel() // kill -9
	_ = cmd.Wait()
	data, err := os.ReadFile(journal)
	if err != nil || strings.Contains(string(data), "{") {
		t.Fatalf("the journal is there in plain, or not at all: %v\n%s", err, data)
	}
	l.sealed()
	l.apply()
	l.served("n1")
	l.settled()
	if r := l.run("plan", "--detailed-exitcode"); strings.Contains(r.stderr, "not encrypted") {
		t.Errorf("it warns of a state that is encrypted: %s", r)
	}
	l.edit(`delay = "5s"`, `delay = "6s"`)
	file := filepath.Join(t.TempDir(), "a.plan")
	l.must(0, "plan", "--out", file)
	if data, err := os.ReadFile(file); err != nil || bytes.Contains(data, []byte("node.n1")) {
		t.Errorf("the plan is in plain: %v", err)
	}
	l.must(0, "apply", file)
	l.settled()
	l.sealed()
	l.env = nil
	l.must(1, "destroy", "--auto-approve").wants(t, seal.EnvIdentityFile)
	l.served("n1")
	l.env = []string{seal.EnvIdentityFile + "=" + key}
	l.destroyed()
}

// sealed wants the secrets of the state in no file of the definition's directory,
// but for the nodes' own.
func (l *lab) sealed() {
	l.t.Helper()
	secret := []byte(l.state().Cluster.Key)
	var found []string
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && d.Name() == "nodes" {
				return filepath.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, secret) || bytes.Contains(data, []byte("PRIVATE KEY-----\\n")) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if found = slices.DeleteFunc(found, func(p string) bool { return filepath.Base(filepath.Dir(p)) == "bin" }); len(found) > 0 || len(secret) == 0 {
		l.t.Errorf("in plain: %q", found)
	}
}
