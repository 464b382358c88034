package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Whatever is written in whatever pieces: the files hold the newest output in
// order without a gap, none is longer than allowed, and there are no more of
// them. Lines that fit into a file are never torn.
func TestRotation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "rotation")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		limit := rapid.Int64Range(16, 64).Draw(t, "limit")
		keep := rapid.IntRange(0, 3).Draw(t, "keep")
		name := filepath.Join(dir, "sub", "a.log")
		r, err := openRotated(name, limit, keep)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for i := range rapid.IntRange(0, 40).Draw(t, "lines") {
			line := fmt.Sprintf("%d:%s\n", i, strings.Repeat("x", rapid.IntRange(0, 10).Draw(t, "length")))
			all.WriteString(line)
			for len(line) > 0 {
				n := rapid.IntRange(1, len(line)).Draw(t, "piece")
				r.write([]byte(line[:n]))
				line = line[n:]
			}
			if rapid.IntRange(0, 9).Draw(t, "reopen") == 0 {
				r.close()
				if r, err = openRotated(name, limit, keep); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.close()
		var kept string
		for n := keep; n >= 0; n-- {
			file := name
			if n > 0 {
				file = fmt.Sprintf("%s.%d", name, n)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			if int64(len(b)) > limit {
				t.Fatalf("%s has %d bytes, the limit is %d", file, len(b), limit)
			}
			kept += string(b)
		}
		if !strings.HasSuffix(all.String(), kept) {
			t.Fatalf("written:\n%s\nkept:\n%s", all.String(), kept)
		}
		if all.Len() > 0 && kept == "" && keep > 0 {
			t.Fatal("nothing kept")
		}
		files, _ := filepath.Glob(name + "*")
		if len(files) > keep+1 {
			t.Fatalf("%v: more than %d files", files, keep+1)
		}
	})
}

// Whole lines that come in one piece stay whole.
func TestRotationKeepsLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.log")
	r, err := openRotated(name, 20, 2)
	if err != nil {
		t.Fatal(err)
	}
	r.write([]byte("aaaaaaaa\nbbbbbbbb\ncccccccc\ndddddddd\neeeeeeee\n"))
	r.write([]byte(strings.Repeat("f", 45) + "\ng\n"))
	r.close()
	var got []string
	for _, f := range []string{name + ".2", name + ".1", name} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	want := []string{strings.Repeat("f", 20), strings.Repeat("f", 20), "fffff\ng\n"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestOutputIsRotated(t *testing.T) {
	t.Parallel()
	r := ready(t)
	r.send(app(`i=0; while test $i -lt 400; do echo "line $i of many"; i=$((i+1)); done; exec sleep 1000`,
		attribute("log_max_size", "1KiB"), attribute("log_keep", 2)))
	r.awaitState("a", spec.StateOnline)
	log := filepath.Join(r.dir, "log", "web", "a.log")
	eventually(t, "the last line", func() bool { b, _ := os.ReadFile(log); return strings.HasSuffix(string(b), "line 399 of many\n") })
	for _, f := range []string{log, log + ".1", log + ".2"} {
		b, err := os.ReadFile(f)
		if err != nil || len(b) > 1024 || !strings.HasPrefix(string(b), "line ") || !strings.HasSuffix(string(b), " of many\n") {
			t.Errorf("%s: %v, %d bytes, %.30q", f, err, len(b), b)
		}
	}
	if exists(log + ".3") {
		t.Error("a third old log is kept")
	}
}

// A full disk or a missing directory loses output and nothing else.
func TestLogThatCantBeWritten(t *testing.T) {
	r := &rotated{name: "/dev/full", max: 1000, keep: 1}
	r.write([]byte("lost\n"))
	r.write([]byte(strings.Repeat("x", 500)))
	r.close()
	r = &rotated{name: "/no/such/dir/log", max: 10, keep: 1}
	r.write([]byte(strings.Repeat("x", 100)))
}
