package sshconn

import (
	"os"
	"path/filepath"
	"testing"
)

// A ~ is $HOME in all that is read: a key that lies there, what the client's
// configuration names, and the hosts' keys, wherever else the user's home is.
func TestHomeOfFiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte("Host h\n  IdentityFile ~/.ssh/other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := New(Options{})
	defer p.Close()
	got, err := p.resolve(Config{Host: "h", PrivateKeyFile: "~/.ssh/id", KnownHostsFile: "~/hosts"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := [3]string{filepath.Join(home, ".ssh", "id"), filepath.Join(home, ".ssh", "other"), filepath.Join(home, "hosts")}
	if have := [3]string{got.keyFile, got.identities, got.userKnown}; have != want {
		t.Errorf("%q, want %q", have, want)
	}
}
