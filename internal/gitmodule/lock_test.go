package gitmodule

import (
	"bytes"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Source{
		"git::https://example.com/modules.git//web/small?ref=v1.2.0": {"https://example.com/modules.git", "web/small", "v1.2.0"},
		"git::https://example.com/modules.git":                       {"https://example.com/modules.git", ".", ""},
		"git::ssh://git@example.com:22/m.git//web/":                  {"ssh://git@example.com:22/m.git", "web", ""},
		"git::git@example.com:m.git//web?ref=a/b":                    {"git@example.com:m.git", "web", "a/b"},
		"git::file:///srv/m.git//web":                                {"file:///srv/m.git", "web", ""},
		"git::/srv/m.git/?ref=main":                                  {"/srv/m.git", ".", "main"},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"git::":                    "names no repository",
		"git::./modules":           "neither a URL nor an absolute path",
		"git::https://example.com": "names no repository of a host",
		"git::https://a:secret@example.com/m.git": "password in the URL of https://a:xxxxx@example.com",
		"git::git://example.com/m.git":            "not over git",
		"git::ext::sh -c x":                       "has a character",
		"git::/srv/m//../x":                       `"../x" is no directory`,
		"git::/srv/m?ref=--upload-pack=x":         "ref in",
		"git::/srv/m?ref=v1&ref=v2":               "ref in",
		"git::/srv/m?ref=":                        "ref in",
		"git::/srv/m?depth=1":                     "only ref",
		"git::file://host/srv/m":                  "no file of this machine",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

const someCommit = "0123456789abcdef0123456789abcdef01234567"

// Every fault of a lock file says where it is and what to do.
func TestLockFaults(t *testing.T) {
	block := func(body string) string { return "format = 1\nmodule \"/srv/m\" {\n" + body + "\n}\n" }
	whole := block(`  ref = "v1"` + "\n" + `  commit = "` + someCommit + `"`)
	if l, err := ParseLock([]byte(whole), LockName); err != nil || len(l.list) != 1 || l.list[0] != (Locked{"/srv/m", "v1", someCommit, 2}) {
		t.Fatalf("%+v, %v", l, err)
	}
	for text, want := range map[string]string{
		"":                                    "line 1, column 1: there is the end of the file, and format = 1",
		"format = 2\nmodules {}\n":            "line 1, has format 2, and this version of clusterplan reads formats up to 1. Use the version",
		"format = 1\n<<<<<<< HEAD\n":          "line 2, column 1: there is ",
		"format = 1\nplugin \"x\" {\n}\n":     `line 2, column 1: "plugin" is not known`,
		whole[:len(whole)-3]:                  "line 4, column 54: there is the end of the file",
		whole[:len(whole)-20]:                 "line 4, column ",
		block(`  ref = "v1"`):                 "line 2, column 1: the block of /srv/m has no commit",
		block(`  commit = "0123"`):            `line 3, column 3: "0123" is no commit`,
		block(`  commit = "${x}"`):            "line 3, column 13: there is",
		block(`  ref = "a..b"`):               `line 3, column 3: "a..b" is no name`,
		block(`  hash = "x"`):                 `line 3, column 3: "hash" is not known`,
		whole + whole[len("format = 1\n"):]:   "line 6, column 1: v1 of /srv/m is locked on line 2 already",
		strings.Replace(whole, "/srv", "", 1): "",
		strings.Replace(whole, `"v1"`, `"`+strings.Repeat("f", 40)+`"`, 1): "line 2, column 1: the ref is commit ffffffffffff, and the commit 0123456789ab",
		strings.Replace(whole, "/srv/m", "srv/m", 1):                       `line 2, column 8: "srv/m" is no URL`,
	} {
		_, err := ParseLock([]byte(text), LockName)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), LockName) {
			t.Errorf("%q: %v", text, err)
		}
	}
	l, err := ParseLock([]byte(whole), LockName)
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"git::/srv/m?ref=v2": "line 2, has /srv/m at v1, and the definition wants it at v2",
		"git::/srv/m":        "has /srv/m at v1, and the definition wants it without one",
		"git::/srv/n?ref=v1": "doesn't have v1 of /srv/n",
	} {
		s, err := Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Find(s); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "run clusterplan init") {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// Whatever a lock file holds: it is refused in words, or is written as it was read.
func FuzzLock(f *testing.F) {
	f.Fuzz(func(t *testing.T, src []byte) {
		l, err := ParseLock(src, LockName)
		if err != nil {
			if !strings.Contains(err.Error(), LockName) {
				t.Fatalf("%q", err)
			}
			return
		}
		out := l.Bytes()
		again, err := ParseLock(out, LockName)
		if err != nil || len(again.list) != len(l.list) || !bytes.Equal(again.Bytes(), out) {
			t.Fatalf("%q: %v", out, err)
		}
		for _, one := range l.list {
			if got := again.find(one.URL, one.Ref); got == nil || got.Commit != one.Commit {
				t.Fatalf("%+v is lost", one)
			}
			if dir := one.Cache(); CacheOf(dir+"/x") != dir || Inside(dir, "x") {
				t.Fatalf("%s", dir)
			}
		}
	})
}
