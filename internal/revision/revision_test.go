package revision

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// lab is a directory in which git runs, without anybody's own configuration.
type lab struct {
	*testing.T
	dir string
}

func newLab(t *testing.T) lab {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed: repositories to read are made with it")
	}
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+who+"_NAME", "A")
		t.Setenv("GIT_"+who+"_EMAIL", "a@example.com")
	}
	return lab{t, dir}
}

// git runs git in a directory of the lab and returns what it prints.
func (l lab) git(dir string, args ...string) string {
	l.Helper()
	cmd := exec.Command("git", append([]string{"-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = filepath.Join(l.dir, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (l lab) write(name, text string) {
	l.Helper()
	full := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
}

func (l lab) open(dir string) *Repo {
	l.Helper()
	r, err := Open(filepath.Join(l.dir, dir))
	if err != nil {
		l.Fatal(err)
	}
	return r
}

// repo makes one with three commits, a merge, a branch, tags; the definition is in infra/prod.
func (l lab) repo() {
	l.git(".", "init", "-q", "r")
	for _, text := range []string{"one", "two", "three"} {
		l.write("r/infra/prod/main.cluster.hcl", text)
		l.git("r", "add", ".")
		l.git("r", "commit", "-qm", text)
		if text == "one" {
			l.git("r", "tag", "v1.0")
			l.git("r", "branch", "side")
		}
	}
	l.git("r", "checkout", "-q", "side")
	l.write("r/side.txt", "side")
	l.git("r", "add", ".")
	l.git("r", "commit", "-qm", "on the side")
	l.git("r", "checkout", "-q", "main")
	l.git("r", "merge", "-q", "--no-ff", "-m", "merge", "side")
	l.git("r", "tag", "-am", "annotated", "v2.0")
}

func TestExpressions(t *testing.T) {
	l := newLab(t)
	l.repo()
	l.git(".", "clone", "-q", "r", "clone")
	l.git(".", "clone", "-q", "--shared", "r", "shared")
	l.git("clone", "worktree", "add", "-q", "--detach", "../linked", "HEAD~1")
	full := l.git("r", "rev-parse", "HEAD~2")
	expressions := []string{"HEAD", "@", "main", "HEAD~2", "HEAD^", "HEAD^2", "HEAD^^", "@~1^1", "main^0", "v1.0", "v2.0", "v2.0^{}", "v2.0~1", "v2.0^{commit}",
		full, strings.ToUpper(full), full[:7], full[:9], full + "~1", "v1.0-2-g" + full[:8], "refs/heads/main", "heads/main", "tags/v2.0"}
	check := func(dir string, expressions ...string) {
		t.Helper()
		r := l.open(dir)
		for _, e := range expressions {
			want := l.git(dir, "rev-parse", e+"^{commit}")
			got, err := r.Commit(e)
			if err != nil || got.Hash != want {
				t.Errorf("%s in %s: %v, %v, want %s", e, dir, got, err, want)
			}
		}
	}
	check("r", expressions...)
	check("r/infra/prod", "side", "side~1")
	l.git("r", "gc", "-q")
	check("r", expressions...) // packed
	check("clone", "origin/main", "origin", "origin/side~1", "v2.0", "HEAD")
	check("linked", "HEAD", "main", "HEAD~1")
	check("shared", "HEAD~1", "v1.0")
	if c, _ := l.open("r").Commit("HEAD^2"); c.Subject != "on the side" {
		t.Errorf("subject %q", c.Subject)
	}

	for e, want := range map[string]string{
		"":                                    "name a branch, a tag or a commit",
		"nowhere":                             "no branch, tag or commit is called so",
		"HEAD~9":                              "has no parent",
		"HEAD^3":                              "has 2 parents, not 3",
		"main..side":                          "a range",
		"main@{1}":                            "git rev-parse",
		"HEAD:infra":                          "name the revision alone",
		"HEAD^{tree}":                         "is not understood",
		"HEAD~x":                              "is not understood",
		"deadbeef":                            "no commit's hash begins so",
		"HEAD~9999999":                        "too far back",
		"config":                              "no branch, tag or commit is called so",
		l.git("r", "rev-parse", "HEAD:infra"): "it is a tree, not a commit",
		strings.Repeat("ab", 20):              "lacks an object",
	} {
		_, err := l.open("r").Commit(e)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrRevision) && !errors.Is(err, ErrMissing) {
			t.Errorf("%q: %v, want %q", e, err, want)
		}
	}
}

// Every way in which a directory lies in a repository works, or says why not.
func TestWhere(t *testing.T) {
	l := newLab(t)
	l.repo()
	head := l.git("r", "rev-parse", "HEAD")
	l.git(".", "clone", "-q", "--depth", "1", "file://"+l.dir+"/r", "shallow")
	l.git(".", "clone", "-q", "--bare", "r", "bare.git")
	l.git(".", "init", "-q", "super")
	l.git("super", "submodule", "--quiet", "add", "file://"+l.dir+"/r", "sub")
	l.git("super", "commit", "-qm", "with a submodule")
	l.git("r", "worktree", "add", "-q", "-b", "other", "../linked", "v1.0")
	l.git("r", "config", "uploadpack.allowFilter", "true")
	l.git(".", "clone", "-q", "--filter=blob:none", "--no-checkout", "file://"+l.dir+"/r", "partial")
	l.git(".", "clone", "-q", "r", "sparse")
	l.git("sparse", "sparse-checkout", "set", "infra")
	l.git(".", "init", "-q", "unborn")
	l.git(".", "init", "-q", "--object-format=sha256", "long")
	l.write("nothing/x", "")
	if err := os.Symlink("r/infra/prod", filepath.Join(l.dir, "link")); err != nil {
		t.Fatal(err)
	}
	l.write("broken/.git", "gitdir: /nowhere/at/all\n")
	l.git("shallow", "checkout", "-q", "--detach")

	for dir, want := range map[string]string{
		"r": head + " .", "r/infra/prod": head + " infra/prod", "link": head + " infra/prod", "shallow/infra": head + " infra",
		"super/sub/infra": head + " infra", "linked/infra": l.git("r", "rev-parse", "v1.0") + " infra", "sparse/infra": head + " infra",
		"unborn": " .", "partial": head + " .",
	} {
		r := l.open(dir)
		got, err := r.Head()
		if got+" "+r.Dir != want || err != nil {
			t.Errorf("%s: %q at %s, %v, want %s", dir, got, r.Dir, err, want)
		}
	}
	for dir, want := range map[string]string{"nothing": "lies in no git repository", "bare.git": "is a bare repository", "broken": "git worktree repair", "long": "sha256"} {
		if _, err := Open(filepath.Join(l.dir, dir)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	if _, err := l.open("shallow").Commit("HEAD~1"); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "git fetch --unshallow") {
		t.Errorf("before the edge of a shallow clone: %v", err)
	}
	if _, err := l.open("unborn").Commit("HEAD"); !errors.Is(err, ErrRevision) {
		t.Errorf("nothing is committed: %v", err)
	}
	tree, err := l.open("partial").Tree(head, "infra/prod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.ReadFile("main.cluster.hcl"); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "--refetch") {
		t.Errorf("a file that a partial clone lacks: %v", err)
	}
	if _, err := l.open("r").Tree(head, "infra/test"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that the commit lacks: %v", err)
	}
	inner, err := l.open("super").Tree(l.git("super", "rev-parse", "HEAD"), ".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inner.ReadFile("sub/infra/prod/main.cluster.hcl"); err == nil || !strings.Contains(err.Error(), "is a submodule") {
		t.Errorf("a submodule's file: %v", err)
	}
}

func TestTree(t *testing.T) {
	l := newLab(t)
	l.git(".", "init", "-q", "r")
	l.write("r/def/main.cluster.hcl", "main")
	l.write("r/def/files/a.txt", "a")
	l.write("r/def/files/deep/b.txt", strings.Repeat("b", 5000))
	l.write("r/shared/base.cluster.hcl", "base")
	l.write("r/big.bin", lfsPointer)
	for name, to := range map[string]string{
		"def/base.cluster.hcl": "../shared/base.cluster.hcl", "def/linked": "files/deep", "def/abs": "/etc/hostname",
		"def/out": "../../outside.txt", "def/loop": "loop", "def/dangling": "nowhere", "def/big": "../big.bin",
	} {
		if err := os.Symlink(to, filepath.Join(l.dir, "r", name)); err != nil {
			t.Fatal(err)
		}
	}
	l.git("r", "add", ".")
	l.git("r", "commit", "-qm", "x")
	tree, err := l.open("r/def").Tree(l.git("r", "rev-parse", "HEAD"), "def")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"main.cluster.hcl": "main", "base.cluster.hcl": "base", "linked/b.txt": strings.Repeat("b", 5000)} {
		if data, err := fs.ReadFile(tree, name); string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for name, want := range map[string]string{"abs": "/etc/hostname", "out": "out of the repository", "loop": "one another", "dangling": "not exist", "big": "Git LFS",
		"../shared/base.cluster.hcl": "invalid", "files": "is a directory", "main.cluster.hcl/x": "not exist"} {
		if _, err := fs.ReadFile(tree, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	// The standard library's own judge of file systems, where there are no links.
	sub := tree.At("def/files")
	if err := fstest.TestFS(sub, "a.txt", "deep/b.txt"); err != nil {
		t.Error(err)
	}
}

const lfsPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"

func TestDirty(t *testing.T) {
	l := newLab(t)
	l.git(".", "init", "-q", "r")
	l.write("r/def/main.cluster.hcl", "main")
	l.write("r/def/nodes.cluster.hcl", "nodes")
	l.write("r/def/motd.txt", "hello")
	l.write("r/other.txt", "x")
	l.write("r/.gitignore", "*.auto.vars.hcl\n/def/local/\n!keep.auto.vars.hcl\n")
	l.git("r", "add", ".")
	l.git("r", "commit", "-qm", "x")
	counts := func(name string) bool { return strings.HasSuffix(name, ".hcl") }
	dirty := func() bool {
		t.Helper()
		w := Watch(os.DirFS(filepath.Join(l.dir, "r/def")))
		entries, err := fs.ReadDir(w, ".")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if counts(e.Name()) {
				if _, err := fs.ReadFile(w, e.Name()); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = fs.ReadFile(w, "motd.txt")
		r := l.open("r/def")
		head, err := r.Head()
		if err != nil {
			t.Fatal(err)
		}
		is, err := r.Dirty(head, w, func(name string) (string, bool) { return path.Join(r.Dir, name), true }, counts)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if dirty() {
		t.Error("just committed, and dirty")
	}
	for _, c := range []struct {
		what  string
		do    func()
		dirty bool
	}{
		{"a file is changed", func() { l.write("r/def/main.cluster.hcl", "other") }, true},
		{"and staged", func() { l.git("r", "add", ".") }, true},
		{"a file is touched", func() { l.write("r/def/main.cluster.hcl", "main") }, false},
		{"a file is gone", func() { os.Remove(filepath.Join(l.dir, "r/def/nodes.cluster.hcl")) }, true},
		{"a file is new", func() { l.write("r/def/more.cluster.hcl", "more") }, true},
		{"an ignored file is new", func() { l.write("r/def/mine.auto.vars.hcl", "x = 1") }, false},
		{"a file that is ignored, and then not", func() { l.write("r/def/keep.auto.vars.hcl", "x = 1") }, true},
		{"what the definition reads is changed", func() { l.write("r/def/motd.txt", "bye") }, true},
		{"what the definition reads is gone", func() { os.Remove(filepath.Join(l.dir, "r/def/motd.txt")) }, true},
		{"another directory's file is changed", func() { l.write("r/other.txt", "y") }, false},
		{"a note is new", func() { l.write("r/def/notes.txt", "y") }, false},
		{"a link leads out", func() {
			os.Remove(filepath.Join(l.dir, "r/def/motd.txt"))
			_ = os.Symlink(filepath.Join(l.dir, "r/other.txt"), filepath.Join(l.dir, "r/def/motd.txt"))
		}, true},
	} {
		c.do()
		if got := dirty(); got != c.dirty {
			t.Errorf("%s: dirty %v", c.what, got)
		}
		if c.what != "a file is changed" {
			l.git("r", "reset", "-q", "--hard")
			l.git("r", "clean", "-qfdx")
		}
	}
	l.git("r", "checkout", "-q", "--orphan", "empty")
	if !dirty() {
		t.Error("nothing is committed, and clean")
	}
}
