package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func identity(t testing.TB) (recipient, file string) {
	t.Helper()
	id := must[*age.X25519Identity](t)(age.GenerateX25519Identity())
	return id.Recipient().String(), write(t, "# a comment\n"+id.String()+"\n")
}

func write(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func keys(t testing.TB, c Config) *Keys {
	t.Helper()
	c.work = 10
	return must[*Keys](t)(New(c))
}

func TestSealAndOpen(t *testing.T) {
	to, file := identity(t)
	other, otherFile := identity(t)
	_, secret, _ := ed25519.GenerateKey(rand.Reader)
	pub := must[ssh.PublicKey](t)(ssh.NewPublicKey(secret.Public()))
	block := must[*pem.Block](t)(ssh.MarshalPrivateKey(secret, ""))
	sshFile := write(t, string(pem.EncodeToMemory(block)))
	locked := must[*pem.Block](t)(ssh.MarshalPrivateKeyWithPassphrase(secret, "", []byte("x")))
	lockedFile := write(t, string(pem.EncodeToMemory(locked)))
	all := []string{to, other, string(ssh.MarshalAuthorizedKey(pub))}
	text := []byte("the cluster's keys")
	for _, c := range []struct {
		name        string
		write, read Config
		err         error
		say         string
	}{
		{name: "the first", write: Config{Recipients: all}, read: Config{IdentityFile: file}},
		{name: "another", write: Config{Recipients: all}, read: Config{IdentityFile: otherFile}},
		{name: "ssh", write: Config{Recipients: all}, read: Config{IdentityFile: sshFile}},
		{name: "ssh, the second in its file", write: Config{Recipients: all[2:]}, read: Config{IdentityFile: write(t, sshText(t)+"\n"+string(pem.EncodeToMemory(block)))}},
		{name: "an identity behind an SSH key", write: Config{Recipients: all[:1]}, read: Config{IdentityFile: write(t, sshText(t)+"# mine\n"+readFile(t, file))}},
		{name: "an SSH key behind an identity", write: Config{Recipients: all[2:]}, read: Config{IdentityFile: write(t, readFile(t, file)+"# mine\n"+string(pem.EncodeToMemory(block)))}},
		{"an SSH key that is cut", Config{Recipients: all}, Config{IdentityFile: write(t, readFile(t, file)+sshText(t)[:100])}, nil, "its SSH key"},
		{"nonsense behind an SSH key", Config{Recipients: all}, Config{IdentityFile: write(t, sshText(t)+"hello\n")}, nil, "holds no age identity"},
		{name: "passphrase", write: Config{UsePassphrase: true, Passphrase: "pass"}, read: Config{Passphrase: "pass"}},
		{name: "passphrase beside an identity", write: Config{UsePassphrase: true, Passphrase: "pass"}, read: Config{Passphrase: "pass", IdentityFile: file}},
		{name: "identity beside a passphrase", write: Config{Recipients: all}, read: Config{Passphrase: "pass", IdentityFile: file}},
		{"not mine", Config{Recipients: []string{to}}, Config{IdentityFile: otherFile}, statefile.ErrSealed, otherFile},
		{"no identity", Config{Recipients: []string{to}}, Config{}, statefile.ErrSealed, EnvIdentityFile},
		{"a passphrase only", Config{Recipients: []string{to}}, Config{Passphrase: "pass"}, statefile.ErrSealed, EnvIdentityFile},
		{"no passphrase", Config{UsePassphrase: true, Passphrase: "pass"}, Config{IdentityFile: file}, statefile.ErrSealed, EnvPassphrase},
		{"wrong passphrase", Config{UsePassphrase: true, Passphrase: "pass"}, Config{Passphrase: "fail"}, statefile.ErrSealed, "does not open it"},
		{"no file", Config{Recipients: []string{to}}, Config{IdentityFile: "/no/such"}, os.ErrNotExist, ""},
		{"no keys in it", Config{Recipients: []string{to}}, Config{IdentityFile: write(t, "hello\n")}, nil, "holds no age identity"},
		{"an SSH key with a passphrase", Config{Recipients: []string{to}}, Config{IdentityFile: lockedFile}, nil, "without a passphrase"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sealed := must[[]byte](t)(keys(t, c.write).Seal(text))
			if !statefile.Sealed(sealed) || bytes.Contains(sealed, text) {
				t.Fatalf("%q", sealed)
			}
			k := keys(t, c.read)
			plain, err := k.Open(sealed)
			if c.err != nil || c.say != "" {
				if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.say) {
					t.Fatal(err)
				}
				return
			}
			if err != nil || !bytes.Equal(plain, text) {
				t.Fatal(err, plain)
			}
			for i := 30; i < len(sealed); i += 7 { // behind the first line, which makes it a sealed file
				if _, err := k.Open(append(bytes.Clone(sealed[:i]), append([]byte{sealed[i] ^ 1}, sealed[i+1:]...)...)); err == nil {
					t.Fatalf("byte %d changed, and nothing said", i)
				}
			}
			if _, err := k.Open(sealed[:len(sealed)-1]); !errors.Is(err, statefile.ErrDamaged) {
				t.Error("cut:", err)
			}
		})
	}
}

// A recipient with a letter too many is not told to begin as it does.
func TestRecipientWithATypo(t *testing.T) {
	to, _ := identity(t)
	for text, want := range map[string]string{to + "x": "a letter is wrong", "ssh-ed25519 AAAA": "a letter is wrong", "me@example.com": "one begins with age1"} {
		if _, err := New(Config{Recipients: []string{text}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheck(t *testing.T) {
	to, file := identity(t)
	other, _ := identity(t)
	for _, c := range []struct {
		config Config
		say    string // "": it can be read again
	}{
		{Config{}, ""},
		{Config{Recipients: []string{to, other}, IdentityFile: file}, ""},
		{Config{UsePassphrase: true, Passphrase: "x"}, ""},
		{Config{Recipients: []string{other}, IdentityFile: file}, "could not be read again"},
		{Config{Recipients: []string{to}}, EnvIdentityFile},
		{Config{UsePassphrase: true}, EnvPassphrase},
		{Config{UsePassphrase: true, Passphrase: "x\n"}, "line break"},
	} {
		err := keys(t, c.config).Check()
		if c.say == "" && err != nil || c.say != "" && (err == nil || !strings.Contains(err.Error(), c.say)) {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
	secret, _ := os.ReadFile(file)
	for _, bad := range []Config{
		{Recipients: []string{"age1nonsense"}}, {Recipients: []string{""}}, {Recipients: []string{to + "\n" + other}},
		{Recipients: []string{strings.Split(string(secret), "\n")[1]}}, {Recipients: []string{to}, UsePassphrase: true},
	} {
		if _, err := New(bad); err == nil || strings.Contains(err.Error(), "SECRET-KEY-1") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A file that asks for more memory than a machine may have is refused before it gets any.
func TestWorkIsBounded(t *testing.T) {
	k := must[*Keys](t)(New(Config{UsePassphrase: true, Passphrase: "x", work: 1}))
	sealed := must[[]byte](t)(k.Seal([]byte("x")))
	head, rest, _ := bytes.Cut(sealed, []byte(" 1\n"))
	for _, work := range []string{"21", "22", "40"} {
		if _, err := k.Open(slices.Concat(head, []byte(" "+work+"\n"), rest)); !errors.Is(err, statefile.ErrDamaged) || !strings.Contains(err.Error(), "work factor too large") {
			t.Errorf("%s: %v", work, err)
		}
	}
}

// A sealed journal is read to the last whole record wherever a crash cut it, and
// refused where a record was changed, dropped, doubled, moved, or brought from
// another journal, also with sums that were made to fit.
func TestJournal(t *testing.T) {
	to, file := identity(t)
	k := keys(t, Config{Recipients: []string{to}, IdentityFile: file})
	var entries []statefile.Entry
	for _, name := range []string{"a", "b", "c", "d"} {
		entries = append(entries, statefile.Entry{Time: time.Unix(1, 0).UTC(), Result: &statefile.Result{Addr: addr.Node(name, addr.NoKey), Gone: true}})
	}
	journal := func() (lines [][]byte) {
		var c statefile.Chain
		var data []byte
		for i := range entries {
			data = must[[]byte](t)(c.Append(data, &entries[i], k))
		}
		lines = bytes.SplitAfter(data, []byte("\n"))
		return lines[:len(lines)-1]
	}
	a, b := journal(), journal()
	if len(a) != 5 || bytes.Contains(bytes.Join(a, nil), []byte("node")) {
		t.Fatalf("%s", a)
	}
	data := bytes.Join(a, nil)
	for cut := range data {
		j, err := statefile.DecodeJournal(data[:cut], k)
		if err != nil || len(j.Entries) != max(0, bytes.Count(data[:cut], []byte("\n"))-1) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if cut%97 != 0 {
			continue
		}
		// What comes after a torn end is read too.
		more := must[[]byte](t)(j.Chain.Append(bytes.Clone(data[:j.Size]), &entries[3], k))
		if again, err := statefile.DecodeJournal(more, k); err != nil || again.Torn || len(again.Entries) != len(j.Entries)+1 {
			t.Fatalf("gone on at %d: %v", cut, err)
		}
	}
	// Of a write of three, any part may be zeros: it is none, and what was before stays.
	var c statefile.Chain
	kept := must[[]byte](t)(c.Append(nil, &entries[0], k))
	all := must[[]byte](t)(c.AppendAll(bytes.Clone(kept), entries[1:], k))
	for from := len(kept); from < len(all); from += 16 {
		bad := bytes.Clone(all)
		clear(bad[from:min(from+100, len(bad))])
		if j, err := statefile.DecodeJournal(bad, k); err != nil || !j.Torn || len(j.Entries) != 1 || j.Size != int64(len(kept)) {
			t.Fatalf("zeros from %d: %v", from, err)
		}
	}
	for name, lines := range map[string][][]byte{
		"dropped":               {a[0], a[1], a[3], a[4]},
		"the first dropped":     {a[0], a[2], a[3]},
		"doubled":               {a[0], a[1], a[1], a[2]},
		"moved":                 {a[0], a[2], a[1], a[3]},
		"of another journal":    {a[0], a[1], b[2]},
		"another journal's key": {b[0], a[1]},
		"a key in the middle":   {a[0], a[1], b[0], b[1]},
		"in plain":              {a[0], a[1], plainRecord(t, &entries[2])},
	} {
		_, err := statefile.DecodeJournal(resummed(lines), k)
		if !errors.Is(err, statefile.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range a { // changed in the middle of each
		lines := append([][]byte(nil), a...)
		lines[i] = bytes.Clone(a[i])
		at := len(a[i]) * 2 / 3
		lines[i][at] = 'A' + (lines[i][at]-'A'+1)%26
		if _, err := statefile.DecodeJournal(resummed(lines), k); err == nil {
			t.Errorf("record %d was changed, and nothing said", i)
		}
	}
	if _, err := statefile.DecodeJournal(data, nil); !errors.Is(err, statefile.ErrSealed) {
		t.Error(err)
	}
}

func plainRecord(t *testing.T, e *statefile.Entry) []byte {
	return must[[]byte](t)(new(statefile.Chain).Append(nil, e, nil))
}

// resummed is a journal of these records, with sums as clusterplan writes them.
func resummed(lines [][]byte) []byte {
	var out []byte
	var sum uint32
	for _, l := range lines {
		sum = crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), l[9:len(l)-1])
		out = append(fmt.Appendf(out, "%08x ", sum), l[9:]...)
	}
	return out
}

// sshText is the file of another SSH key.
func sshText(t *testing.T) string {
	_, secret, _ := ed25519.GenerateKey(rand.Reader)
	return string(pem.EncodeToMemory(must[*pem.Block](t)(ssh.MarshalPrivateKey(secret, ""))))
}

func readFile(t *testing.T, name string) string {
	return string(must[[]byte](t)(os.ReadFile(name)))
}
