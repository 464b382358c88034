package shell

import (
	"os/exec"
	"testing"
)

func TestQuote(t *testing.T) {
	for s, want := range map[string]string{
		"":               "''",
		"state.json":     "state.json",
		"/a-b/c_d@e:1,+": "/a-b/c_d@e:1,+",
		"my dir":         "'my dir'",
		"it's":           `'it'\''s'`,
		"$(x) `y` \"z\"": "'$(x) `y` \"z\"'",
		"~":              "'~'",
		"two\nlines\\":   "'two\nlines\\'",
		"über":           "'über'",
	} {
		got := Quote(s)
		if got != want {
			t.Errorf("%q is quoted as %s, want %s", s, got, want)
		}
		if out, err := exec.Command("sh", "-c", "printf %s "+got).Output(); err != nil || string(out) != s {
			t.Errorf("a shell makes %q of %q, %v", out, s, err)
		}
	}
}
