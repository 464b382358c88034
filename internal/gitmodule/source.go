// Package gitmodule is where modules from git come from: sources as a
// definition writes them, the lock file that says which commit each stands for,
// and the cache that has the files of those commits.
//
// A source is git::URL//DIRECTORY?ref=REF. The first time, what REF stands for
// is asked of the repository and locked; from then on the locked commit is
// meant, wherever REF has moved. The cache has the whole tree of a commit under
// the commit's name, made aside and renamed: what is there is whole. Only a
// Fetcher touches a network, or a repository, or writes; everybody else reads
// lock file and cache through an fs.FS.
//
// Start reading at Parse (source.go), then lock.go, fetch.go, and remote.go for
// how a commit is got. No git program is run, no hook, and no configuration of
// a repository that runs anything.
package gitmodule

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// Prefix is how sources of modules from git begin.
const Prefix = "git::"

// Source is where a module is.
type Source struct {
	URL string // of the repository, or its path on this machine
	Dir string // in the repository; "." is its root
	Ref string // a tag, a branch or a whole commit; "" is what the repository's HEAD is
}

const form = `Write git::URL//DIRECTORY?ref=REF, as "git::https://example.com/modules.git//web?ref=v1.2.0".`

var scp = regexp.MustCompile(`^[^/:@\s]+@[^/:\s]+:[^/:].*$|^[^/:@\s]+@[^/:\s]+:/.*$`)

// Parse reads a source. Its error says what to do.
func Parse(text string) (Source, error) {
	fail := func(format string, args ...any) (Source, error) {
		return Source{}, fmt.Errorf(format, args...)
	}
	rest, ok := strings.CutPrefix(text, Prefix)
	if !ok || rest == "" {
		return fail("%q names no repository. %s", text, form)
	}
	if !plain(rest) {
		return fail("%q has a character that stands in no such URL (a space, a quote, a backslash, ${ or what can't be printed). %s", text, form)
	}
	s := Source{Dir: "."}
	rest, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return fail("what is behind ? in %q is not understood: %w. %s", text, err, form)
	}
	for name, list := range values {
		switch {
		case name != "ref":
			return fail("%q has %s behind ?, where only ref can stand. %s", text, name, form)
		case len(list) != 1 || !validRef(list[0]):
			return fail("ref in %q is no name of a tag, a branch or a commit. %s", text, form)
		}
		s.Ref = list[0]
	}
	from := 0
	if i := strings.Index(rest, "://"); i >= 0 {
		from = i + len("://")
	}
	if i := strings.Index(rest[from:], "//"); i >= 0 {
		s.Dir = strings.Trim(rest[from+i:], "/")
		rest = rest[:from+i]
		if s.Dir != "" && !fs.ValidPath(s.Dir) || s.Dir == "" {
			return fail("%q is no directory of a repository. %s", s.Dir, form)
		}
	}
	s.URL = strings.TrimRight(rest, "/")
	switch {
	case from > 0:
		u, err := url.Parse(s.URL)
		if err != nil {
			return fail("%q is no URL. %s", s.URL, form)
		}
		if _, secret := u.User.Password(); secret {
			return fail("there is a password in the URL of %s, which everybody would read in the definition and in the lock file. Put it into ~/.netrc, and take it out here.", u.Redacted())
		}
		switch u.Scheme {
		case "https", "http", "ssh":
			if u.Host == "" || strings.Trim(u.Path, "/") == "" {
				return fail("%q names no repository of a host. %s", s.URL, form)
			}
		case "file":
			if u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path) {
				return fail("%q is no file of this machine: write file:///srv/modules.git.", s.URL)
			}
		default:
			return fail("repositories are read over https, ssh, http and file, not over %s. %s", u.Scheme, form)
		}
	case path.IsAbs(s.URL), scp.MatchString(s.URL):
	default:
		return fail("%q is neither a URL nor an absolute path. A module of the same repository is a directory: ./modules/NAME. %s", s.URL, form)
	}
	return s, nil
}

// plain tells whether text can stand between quotes in the lock file as it is.
func plain(text string) bool {
	return !strings.ContainsAny(text, " \"\\") && !strings.Contains(text, "${") && !strings.Contains(text, "%{") &&
		strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

func validRef(ref string) bool {
	return ref != "" && plain(ref) && !strings.HasPrefix(ref, "-") && !strings.HasPrefix(ref, "/") && !strings.HasSuffix(ref, "/") &&
		!strings.ContainsAny(ref, "~^:?*[") && !strings.Contains(ref, "..") && !strings.Contains(ref, "@{") && !strings.Contains(ref, "//")
}

// local is the repository's path on this machine; "": it is elsewhere.
func (s Source) local() string {
	if path.IsAbs(s.URL) {
		return s.URL
	}
	if u, err := url.Parse(s.URL); err == nil && u.Scheme == "file" {
		return u.Path
	}
	return ""
}

// String is what is meant of the repository, for messages.
func (s Source) String() string {
	if s.Ref == "" {
		return "HEAD of " + s.URL
	}
	return s.Ref + " of " + s.URL
}

// ErrInit is wrapped by what init would mend.
var ErrInit = errors.New("run clusterplan init")

// CacheDir has the cached commits, from the root's directory.
const CacheDir = ".clusterplan/modules"

var unsafeName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// Cache is the directory of a locked commit's tree, from the root's directory.
func (l Locked) Cache() string {
	name := l.URL
	if i := strings.LastIndexAny(name, "/:"); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Trim(unsafeName.ReplaceAllString(strings.TrimSuffix(name, ".git"), "-"), "-")
	if len(name) > 60 {
		name = name[:60]
	}
	if name == "" {
		name = "module"
	}
	return path.Join(CacheDir, name+"-"+l.Commit)
}

// CacheOf is the cached commit's directory that dir, from the root's directory,
// is or lies in; "": it lies in none.
func CacheOf(dir string) string {
	rest, ok := strings.CutPrefix(dir, CacheDir+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return path.Join(CacheDir, name)
}
