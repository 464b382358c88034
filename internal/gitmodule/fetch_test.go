package gitmodule

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"golang.org/x/sys/unix"
)

// origin is a bare repository, written object by object: also what no git
// program would write.
type origin struct {
	*testing.T
	dir   string
	store *filesystem.Storage
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "modules.git")
	store := filesystem.NewStorage(osfs.New(dir), cache.NewObjectLRUDefault())
	if _, err := git.InitWithOptions(store, nil, git.InitOptions{DefaultBranch: "refs/heads/main"}); err != nil {
		t.Fatal(err)
	}
	return &origin{t, dir, store}
}

func (o *origin) object(typ plumbing.ObjectType, encode func(plumbing.EncodedObject) error) plumbing.Hash {
	o.Helper()
	e := o.store.NewEncodedObject()
	e.SetType(typ)
	if err := encode(e); err != nil {
		o.Fatal(err)
	}
	hash, err := o.store.SetEncodedObject(e)
	if err != nil {
		o.Fatal(err)
	}
	return hash
}

// tree writes files (name to content; @ in front is a symbolic link, a content
// of submodule is one).
func (o *origin) tree(files map[string]string) plumbing.Hash {
	o.Helper()
	var tree object.Tree
	inner := map[string]map[string]string{}
	for name, text := range files {
		if first, rest, deep := strings.Cut(name, "/"); deep {
			if inner[first] == nil {
				inner[first] = map[string]string{}
			}
			inner[first][rest] = text
			continue
		}
		e := object.TreeEntry{Name: name, Mode: filemode.Regular}
		switch to, link := strings.CutPrefix(text, "@"); {
		case text == "submodule":
			e.Mode, e.Hash = filemode.Submodule, plumbing.NewHash(someCommit)
		default:
			if link {
				e.Mode = filemode.Symlink
			}
			e.Hash = o.object(plumbing.BlobObject, func(into plumbing.EncodedObject) error {
				w, err := into.Writer()
				if err != nil {
					return err
				}
				_, err = w.Write([]byte(to))
				return errors.Join(err, w.Close())
			})
		}
		tree.Entries = append(tree.Entries, e)
	}
	for name, files := range inner {
		tree.Entries = append(tree.Entries, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: o.tree(files)})
	}
	slices.SortFunc(tree.Entries, func(a, b object.TreeEntry) int { return strings.Compare(a.Name, b.Name) })
	return o.object(plumbing.TreeObject, tree.Encode)
}

// commit puts files on a branch, on top of parents, and returns the commit.
func (o *origin) commit(branch string, files map[string]string, parents ...string) string {
	o.Helper()
	who := object.Signature{Name: "A", Email: "a@example.com", When: time.Unix(1_700_000_000, 0)}
	c := object.Commit{Author: who, Committer: who, Message: branch, TreeHash: o.tree(files)}
	for _, p := range parents {
		c.ParentHashes = append(c.ParentHashes, plumbing.NewHash(p))
	}
	hash := o.object(plumbing.CommitObject, c.Encode)
	o.ref("refs/heads/"+branch, hash.String())
	return hash.String()
}

// tag is an annotated one.
func (o *origin) tag(name, commit string) {
	o.Helper()
	tag := object.Tag{Name: name, Tagger: object.Signature{Name: "A", Email: "a@example.com"}, Message: "m", TargetType: plumbing.CommitObject, Target: plumbing.NewHash(commit)}
	o.ref("refs/tags/"+name, o.object(plumbing.TagObject, tag.Encode).String())
}

func (o *origin) ref(name, hash string) {
	o.Helper()
	if err := o.store.SetReference(plumbing.NewHashReference(plumbing.ReferenceName(name), plumbing.NewHash(hash))); err != nil {
		o.Fatal(err)
	}
}

// root is a definition's directory. Each get is one run of init.
type root struct {
	*testing.T
	dir string
}

func newRoot(t *testing.T) *root { return &root{t, t.TempDir()} }

func (r *root) init(ctx context.Context, set func(*Fetcher), sources ...string) ([]Locked, []string, error) {
	r.Helper()
	lock, err := ReadLock(os.DirFS(r.dir))
	if err != nil {
		return nil, nil, err
	}
	f := &Fetcher{Dir: r.dir, Lock: lock, Prepare: func() error { return os.MkdirAll(filepath.Join(r.dir, ".clusterplan"), 0o700) }}
	if set != nil {
		set(f)
	}
	defer f.Close()
	var out []Locked
	for _, text := range sources {
		s, err := Parse(text)
		if err != nil {
			r.Fatal(err)
		}
		one, err := f.Get(ctx, s)
		if err != nil {
			return out, f.Said(), errors.Join(err, f.Save(false))
		}
		out = append(out, one)
	}
	err = f.Save(true)
	return out, f.Said(), err
}

func (r *root) must(sources ...string) ([]Locked, string) {
	r.Helper()
	out, said, err := r.init(r.Context(), nil, sources...)
	if err != nil {
		r.Fatal(err)
	}
	return out, strings.Join(said, "\n")
}

// refused is an init that has to fail, in words.
func (r *root) refused(want string, sources ...string) {
	r.Helper()
	_, _, err := r.init(r.Context(), nil, sources...)
	if err == nil || !strings.Contains(err.Error(), want) {
		r.Errorf("%s: %v", sources, err)
	}
	r.clean()
}

// clean: the cache has whole commits and its lock only.
func (r *root) clean() {
	r.Helper()
	entries, err := os.ReadDir(filepath.Join(r.dir, CacheDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" && !commitName.MatchString(e.Name()[max(0, len(e.Name())-40):]) {
			r.Errorf("%s is left in the cache", e.Name())
		}
	}
}

func (r *root) read(l Locked, name string) string {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, l.Cache(), name))
	if err != nil {
		r.Error(err)
	}
	return string(b)
}

func upgrade(f *Fetcher) { f.Upgrade = true }

// The life of a lock: a tag and a branch are locked, the branch moves, the lock
// holds, also in a new clone; an upgrade takes what is there now, and says so;
// what isn't used goes; and when history was rewritten, that is said.
func TestLifeOfALock(t *testing.T) {
	for name, url := range map[string]func(*origin) string{
		"path":  func(o *origin) string { return o.dir },
		"file":  func(o *origin) string { return "file://" + o.dir },
		"http":  func(o *origin) string { return serve(o.T, o.dir, nil, false) },
		"https": func(o *origin) string { return serve(o.T, o.dir, nil, true) },
	} {
		t.Run(name, func(t *testing.T) {
			o, r := newOrigin(t), newRoot(t)
			first := o.commit("main", map[string]string{"web/m.cluster.hcl": "one", "base/x": "b"})
			o.tag("v1", first)
			repo := "git::" + url(o)
			tag, branch, head := repo+"//web?ref=v1", repo+"//web?ref=main", repo+"//base"
			got, said := r.must(tag, branch, head)
			if got[0].Commit != first || got[1].Commit != first || got[2].Commit != first || r.read(got[0], "web/m.cluster.hcl") != "one" || r.read(got[2], "base/x") != "b" {
				t.Fatalf("%+v", got)
			}
			if strings.Count(said, "Fetched") != 1 || strings.Count(said, "Locked") != 3 {
				t.Errorf("%s", said)
			}
			r.clean()

			second := o.commit("main", map[string]string{"web/m.cluster.hcl": "two"}, first)
			other := newRoot(t) // a clone of the definition: the lock without the cache
			lock, err := os.ReadFile(filepath.Join(r.dir, LockName))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(other.dir, LockName), lock, 0o644); err != nil {
				t.Fatal(err)
			}
			got, said = other.must(branch, tag, head)
			if got[0].Commit != first || other.read(got[0], "web/m.cluster.hcl") != "one" || strings.Contains(said, "Locked") {
				t.Errorf("%+v: %s", got, said)
			}

			out, lines, err := r.init(t.Context(), upgrade, tag, branch)
			text := strings.Join(lines, "\n")
			if err != nil || out[0].Commit != first || out[1].Commit != second || r.read(out[1], "web/m.cluster.hcl") != "two" ||
				!strings.Contains(text, "Upgraded main of "+strings.TrimPrefix(repo, Prefix)+" from commit "+first[:12]+" to "+second[:12]) ||
				!strings.Contains(text, "HEAD of "+strings.TrimPrefix(repo, Prefix)+" is not used any more") {
				t.Fatalf("%+v: %s, %v", out, text, err)
			}

			// History is rewritten, and the commit's objects are gone.
			third := o.commit("main", map[string]string{"web/m.cluster.hcl": "three"})
			if err := os.Remove(filepath.Join(o.dir, "objects", second[:2], second[2:])); err != nil {
				t.Fatal(err)
			}
			o.store = filesystem.NewStorage(osfs.New(o.dir), cache.NewObjectLRUDefault())
			if got, _ := r.must(branch); got[0].Commit != second {
				t.Errorf("the cache has it still: %+v", got)
			}
			if err := os.RemoveAll(filepath.Join(r.dir, CacheDir)); err != nil {
				t.Fatal(err)
			}
			r.refused("has main of "+strings.TrimPrefix(repo, Prefix)+" at commit "+second[:12]+", and the repository does not have that any more", branch)
			r.refused("the ref is at commit "+third[:12]+" now, and clusterplan init --upgrade takes that", branch)
			if out, _, err := r.init(t.Context(), upgrade, branch); err != nil || out[0].Commit != third {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	o, r := newOrigin(t), newRoot(t)
	commit := o.commit("main", map[string]string{"web/x": "x", "sub": "submodule", "file": "f", "out/link": "@../../../../etc/passwd", "lfs": "version https://git-lfs.github.com/spec/v1\n"})
	url := serve(t, o.dir, nil, false)
	for _, repo := range []string{"git::" + o.dir, "git::" + url} {
		r.refused("has no tag and no branch v9. It has main.", repo+"?ref=v9")
		r.refused("no tag and no branch "+commit[:10], repo+"?ref="+commit[:10])
		r.refused("commit "+commit[:12]+", has no directory nowhere", repo+"//nowhere?ref=main")
		r.refused("has no directory file", repo+"//file")
		r.refused("sub is a submodule", repo+"//sub/web")
		r.refused("has no commit 0123456789ab", repo+"?ref="+someCommit)
	}
	r.refused("there is no git repository "+filepath.Join(o.dir, "x"), "git::"+o.dir+"/x")
	r.refused("there is no repository "+url+"x", "git::"+url+"x")
	if _, err := os.Stat(filepath.Join(r.dir, LockName)); err == nil {
		t.Error("something was locked")
	}
	got, said := r.must("git::" + o.dir + "//web?ref=" + commit)
	if got[0].Commit != commit || !strings.Contains(said, "Note: lfs of") || !strings.Contains(said, "Note: sub of") {
		t.Errorf("%+v: %s", got, said)
	}
	if to, err := os.Readlink(filepath.Join(r.dir, got[0].Cache(), "out/link")); err != nil || to != "../../../../etc/passwd" { // reading refuses it: see the command's tests
		t.Errorf("%s, %v", to, err)
	}
	if _, _, err := r.init(t.Context(), func(f *Fetcher) { f.Fixed = true }, "git::"+o.dir+"?ref=main"); err == nil || !strings.Contains(err.Error(), "It is the lock file of a revision") {
		t.Errorf("%v", err)
	}

	// A tree whose names lead out of it writes nothing there.
	evil := newOrigin(t)
	evil.commit("main", map[string]string{"..": "x"})
	r.refused(`an entry called ".."`, "git::"+evil.dir)
	evil.commit("main", map[string]string{"a": "@" + filepath.Dir(r.dir), "a/stolen": "x"})
	if _, _, err := r.init(t.Context(), nil, "git::"+evil.dir); err == nil {
		t.Error("a tree with the same name twice was taken")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(r.dir), "stolen")); err == nil {
		t.Error("written out of the cache")
	}
	r.clean()
}

// What a killed init has left is no cache, and goes; one that is at work is not disturbed.
func TestKilledAndConcurrent(t *testing.T) {
	o, r := newOrigin(t), newRoot(t)
	o.commit("main", map[string]string{"x": "x"})
	half := filepath.Join(r.dir, CacheDir, ".tmp-1/tree/x")
	if err := os.MkdirAll(half, 0o755); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Create(filepath.Join(r.dir, CacheDir, ".lock"))
	if err == nil {
		err = unix.Flock(int(busy.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.init(t.Context(), nil, "git::"+o.dir); err == nil || !strings.Contains(err.Error(), "another clusterplan init") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Error("somebody else's work was removed")
	}
	busy.Close()
	r.must("git::" + o.dir)
	r.clean()

	// Cut off while the repository answers: nothing is there, nothing is locked.
	r = newRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, o.dir, func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPost {
			return true
		}
		cancel()
		<-t.Context().Done()
		return false
	}, false)
	if _, _, err := r.init(ctx, nil, "git::"+url); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	r.clean()
	if _, err := os.Stat(filepath.Join(r.dir, LockName)); err == nil {
		t.Error("locked what was not fetched")
	}
}

// A directory that can't be written is an error that names it, unless nothing has to be.
func TestReadOnly(t *testing.T) {
	o, r := newOrigin(t), newRoot(t)
	o.commit("main", map[string]string{"x": "x"})
	if err := os.MkdirAll(filepath.Join(r.dir, ".clusterplan"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, CacheDir), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.init(t.Context(), nil, "git::"+o.dir); err == nil || !strings.Contains(err.Error(), filepath.Join(r.dir, CacheDir)+", which can't be written") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(r.dir, CacheDir)); err != nil {
		t.Fatal(err)
	}
	r.must("git::" + o.dir)
	if os.Geteuid() != 0 {
		t.Skip("to mount a directory read-only takes root")
	}
	if err := unix.Mount(r.dir, r.dir, "", unix.MS_BIND, ""); err != nil {
		t.Skip("mounts are not allowed here:", err)
	}
	defer unix.Unmount(r.dir, unix.MNT_DETACH)
	if err := unix.Mount("", r.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Skip("mounts are not allowed here:", err)
	}
	r.must("git::" + o.dir)
	o.commit("main", map[string]string{"x": "y"})
	if _, _, err := r.init(t.Context(), upgrade, "git::"+o.dir); err == nil || !strings.Contains(err.Error(), "can't be written") || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("%v", err)
	}
}

// Who may read a repository over https stands in netrc; over http, and to
// another host, no password is told.
func TestPasswords(t *testing.T) {
	o, r := newOrigin(t), newRoot(t)
	o.commit("main", map[string]string{"x": "x"})
	needed := func(w http.ResponseWriter, q *http.Request) bool {
		if name, password, _ := q.BasicAuth(); name == "anna" && password == "secret" {
			return true
		}
		w.Header().Set("WWW-Authenticate", "Basic")
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return false
	}
	asked := false
	plain := serve(t, o.dir, func(w http.ResponseWriter, q *http.Request) bool {
		_, _, asked = q.BasicAuth()
		return needed(w, q)
	}, false)
	url := serve(t, o.dir, needed, true)
	file := filepath.Join(t.TempDir(), "netrc")
	t.Setenv("NETRC", file)
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.refused("refuses access: authentication required: who are you?. Check what ~/.netrc", "git::"+url)
	write("machine elsewhere.example.com login anna password secret\ndefault login anna password secret\n")
	r.refused("refuses access", "git::"+url)
	write("# mine\nmachine 127.0.0.1\n  login anna\n  password secret\n")
	r.must("git::" + url)
	r.refused("Over http nobody is told a password", "git::"+plain)
	if asked {
		t.Error("the password was sent over http")
	}

	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("HOME", t.TempDir())
	r.refused("there is no SSH key to read ssh://127.0.0.1:1/m.git with", "git::ssh://127.0.0.1:1/m.git")
	r.refused("can't be asked", "git::http://127.0.0.1:1/m.git")
}

// serve serves a repository by git's own program for that; first is asked about
// each request, and answers those that it says false to.
func serve(t *testing.T, dir string, first func(http.ResponseWriter, *http.Request) bool, tls bool) string {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed, whose http-backend serves the repository")
	}
	h := &cgi.Handler{Path: program, Args: []string{"http-backend"}, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + t.TempDir(),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if first == nil || first(w, q) {
			h.ServeHTTP(w, q)
		}
	}))
	if tls {
		server.StartTLS()
		client.InstallProtocol("https", githttp.NewClient(server.Client()))
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server.URL + "/" + filepath.Base(dir)
}
