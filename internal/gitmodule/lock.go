package gitmodule

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// LockName is the lock file, beside the root's files.
const LockName = ".clusterplan.lock.hcl"

// format is that of the lock file that this program writes.
const format = 1

// maxLock bounds the lock file: ten thousand modules need less.
const maxLock = 4 << 20

// Locked says which commit a ref of a repository stands for.
type Locked struct {
	URL    string
	Ref    string // "": the repository's HEAD
	Commit string // whole
	Line   int    // of the lock file; 0: it was not read from one
}

// Lock is a lock file.
type Lock struct {
	Name  string // for messages
	Found bool   // there is one
	list  []Locked
}

// mend says what to do about a lock file that can't be read.
const mend = "Take it as it was from your repository (git checkout); or remove it, and clusterplan init locks what the refs are today"

// ReadLock reads the lock file of the root's directory. Without one the Lock is empty.
func ReadLock(root fs.FS) (*Lock, error) {
	src, err := fs.ReadFile(root, LockName)
	if errors.Is(err, fs.ErrNotExist) {
		return &Lock{Name: LockName}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lock file: %w", err)
	}
	return ParseLock(src, LockName)
}

// ParseLock reads a lock file: its few forms only, and nothing that nests.
func ParseLock(src []byte, name string) (*Lock, error) {
	if len(src) > maxLock {
		return nil, fmt.Errorf("the lock file %s has more than %d bytes, which no lock file has. %s", name, maxLock, mend)
	}
	tokens, diags := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	p := &lockParser{name: name, rest: slices.DeleteFunc(tokens, func(t hclsyntax.Token) bool {
		return t.Type == hclsyntax.TokenComment && !bytes.HasSuffix(t.Bytes, []byte("\n"))
	})}
	for i := range p.rest { // a comment to the end of the line ends that
		if p.rest[i].Type == hclsyntax.TokenComment {
			p.rest[i].Type = hclsyntax.TokenNewline
		}
	}
	l, err := p.lock()
	if err == nil && diags.HasErrors() {
		err = p.fail(diags[0].Subject.Start.Line, diags[0].Subject.Start.Column, diags[0].Summary)
	}
	return l, err
}

type lockParser struct {
	name string
	rest []hclsyntax.Token
}

func (p *lockParser) fail(line, column int, what string) error {
	return fmt.Errorf("the lock file %s is damaged: line %d, column %d: %s. %s", p.name, line, column, what, mend)
}

// wanted is the error of another token than what belongs there.
func (p *lockParser) wanted(what string) error {
	t := p.rest[0]
	found := strconv.Quote(string(t.Bytes))
	switch {
	case t.Type == hclsyntax.TokenEOF:
		found = "the end of the file"
	case t.Type == hclsyntax.TokenNewline:
		found = "the end of the line"
	case len(t.Bytes) > 40:
		found = strconv.Quote(string(t.Bytes[:40])) + "..."
	}
	return p.fail(t.Range.Start.Line, t.Range.Start.Column, fmt.Sprintf("there is %s, and %s belongs there", found, what))
}

func (p *lockParser) take(typ hclsyntax.TokenType) (hclsyntax.Token, bool) {
	t := p.rest[0]
	if t.Type != typ {
		return t, false
	}
	if typ != hclsyntax.TokenEOF {
		p.rest = p.rest[1:]
	}
	return t, true
}

func (p *lockParser) lines() {
	for p.rest[0].Type == hclsyntax.TokenNewline {
		p.rest = p.rest[1:]
	}
}

// text is a quoted string without anything to be worked out.
func (p *lockParser) text(what string) (string, error) {
	if _, ok := p.take(hclsyntax.TokenOQuote); !ok {
		return "", p.wanted(what + " in quotes")
	}
	t, ok := p.take(hclsyntax.TokenQuotedLit)
	if !ok || !plain(string(t.Bytes)) {
		if ok {
			return "", p.fail(t.Range.Start.Line, t.Range.Start.Column, fmt.Sprintf("%q is no %s", t.Bytes, what))
		}
		return "", p.wanted(what)
	}
	if _, ok := p.take(hclsyntax.TokenCQuote); !ok {
		return "", p.wanted("the closing quote")
	}
	return string(t.Bytes), nil
}

var commitName = regexp.MustCompile(`^[0-9a-f]{40}$`)

func (p *lockParser) lock() (*Lock, error) {
	l := &Lock{Name: p.name, Found: true}
	p.lines()
	if t, ok := p.take(hclsyntax.TokenIdent); !ok || string(t.Bytes) != "format" {
		if ok {
			p.rest = append([]hclsyntax.Token{t}, p.rest...)
		}
		return nil, p.wanted("format = " + strconv.Itoa(format))
	}
	if _, ok := p.take(hclsyntax.TokenEqual); !ok {
		return nil, p.wanted("=")
	}
	at := p.rest[0]
	t, ok := p.take(hclsyntax.TokenNumberLit)
	if !ok {
		return nil, p.wanted("a number")
	}
	switch n, err := strconv.Atoi(string(t.Bytes)); {
	case err != nil || n < 1:
		return nil, p.fail(at.Range.Start.Line, at.Range.Start.Column, fmt.Sprintf("there is no format %s", t.Bytes))
	case n > format:
		return nil, fmt.Errorf("the lock file %s, line %d, has format %d, and this version of clusterplan reads formats up to %d. Use the version that wrote it, or a newer one", p.name, at.Range.Start.Line, n, format)
	}
	for {
		if t := p.rest[0]; t.Type != hclsyntax.TokenEOF && t.Type != hclsyntax.TokenNewline {
			return nil, p.wanted("the end of the line")
		}
		p.lines()
		if _, ok := p.take(hclsyntax.TokenEOF); ok {
			return l, nil
		}
		one, err := p.module()
		if err != nil {
			return nil, err
		}
		if first := l.find(one.URL, one.Ref); first != nil {
			return nil, p.fail(one.Line, 1, fmt.Sprintf("%s is locked on line %d already", one, first.Line))
		}
		l.list = append(l.list, one)
	}
}

func (p *lockParser) module() (one Locked, err error) {
	t, ok := p.take(hclsyntax.TokenIdent)
	if !ok || string(t.Bytes) != "module" {
		if ok {
			return one, p.fail(t.Range.Start.Line, t.Range.Start.Column, fmt.Sprintf("%q is not known; there are module blocks", t.Bytes))
		}
		return one, p.wanted("a module block")
	}
	one.Line = t.Range.Start.Line
	at := p.rest[0]
	if one.URL, err = p.text("the URL of a repository"); err != nil {
		return one, err
	}
	if s, err := Parse(Prefix + one.URL); err != nil || s.URL != one.URL {
		return one, p.fail(at.Range.Start.Line, at.Range.Start.Column, fmt.Sprintf("%q is no URL of a repository", one.URL))
	}
	if _, ok := p.take(hclsyntax.TokenOBrace); !ok {
		return one, p.wanted("{")
	}
	for {
		p.lines()
		if _, ok := p.take(hclsyntax.TokenCBrace); ok {
			break
		}
		t, ok := p.take(hclsyntax.TokenIdent)
		if !ok {
			return one, p.wanted("ref, commit or }")
		}
		bad := func(what string) error { return p.fail(t.Range.Start.Line, t.Range.Start.Column, what) }
		if _, ok := p.take(hclsyntax.TokenEqual); !ok {
			return one, p.wanted("=")
		}
		value, err := p.text("a value")
		if err != nil {
			return one, err
		}
		switch name := string(t.Bytes); {
		case name == "ref" && one.Ref == "" && validRef(value):
			one.Ref = value
		case name == "commit" && one.Commit == "" && commitName.MatchString(value):
			one.Commit = value
		case name == "commit" && one.Commit == "":
			return one, bad(fmt.Sprintf("%q is no commit, which has 40 digits of 0-9 and a-f", value))
		case name == "ref" && one.Ref == "":
			return one, bad(fmt.Sprintf("%q is no name of a tag, a branch or a commit", value))
		case name == "ref" || name == "commit":
			return one, bad(name + " is there twice")
		default:
			return one, bad(fmt.Sprintf("%q is not known; there are ref and commit", name))
		}
		if p.rest[0].Type != hclsyntax.TokenNewline && p.rest[0].Type != hclsyntax.TokenCBrace {
			return one, p.wanted("the end of the line")
		}
	}
	if one.Commit == "" {
		return one, p.fail(one.Line, 1, fmt.Sprintf("the block of %s has no commit", one.URL))
	}
	if commitName.MatchString(one.Ref) && one.Ref != one.Commit {
		return one, p.fail(one.Line, 1, fmt.Sprintf("the ref is commit %s, and the commit %s", short(one.Ref), short(one.Commit)))
	}
	return one, nil
}

func (l Locked) String() string { return Source{URL: l.URL, Ref: l.Ref}.String() }

func (l *Lock) find(url, ref string) *Locked {
	for i := range l.list {
		if l.list[i].URL == url && l.list[i].Ref == ref {
			return &l.list[i]
		}
	}
	return nil
}

// Find is what a source is locked at. Its error says what to do.
func (l *Lock) Find(s Source) (Locked, error) {
	if one := l.find(s.URL, s.Ref); one != nil {
		return *one, nil
	}
	if !l.Found {
		return Locked{}, fmt.Errorf("it is not known which commit %s is: there is no lock file %s. It comes from git: %w, which fetches it", s, l.Name, ErrInit)
	}
	for _, other := range l.list {
		if other.URL == s.URL {
			was := "without a ref"
			if other.Ref != "" {
				was = "at " + other.Ref
			}
			now := "without one"
			if s.Ref != "" {
				now = "at " + s.Ref
			}
			return Locked{}, fmt.Errorf("the lock file %s, line %d, has %s %s, and the definition wants it %s. If the definition is right: %w, which locks what it names", l.Name, other.Line, s.URL, was, now, ErrInit)
		}
	}
	return Locked{}, fmt.Errorf("the lock file %s doesn't have %s. It is new: %w, which fetches and locks it", l.Name, s, ErrInit)
}

// Bytes is the file.
func (l *Lock) Bytes() []byte {
	list := slices.Clone(l.list)
	slices.SortFunc(list, func(a, b Locked) int { return cmp.Or(strings.Compare(a.URL, b.URL), strings.Compare(a.Ref, b.Ref)) })
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Which commits modules from git are. clusterplan init keeps this file up to date;\n# commit it with the definition.\nformat = %d\n", format)
	for _, one := range list {
		fmt.Fprintf(&b, "\nmodule \"%s\" {\n", one.URL)
		if one.Ref != "" {
			fmt.Fprintf(&b, "  ref    = \"%s\"\n", one.Ref)
		}
		fmt.Fprintf(&b, "  commit = \"%s\"\n}\n", one.Commit)
	}
	return b.Bytes()
}

func short(commit string) string { return commit[:12] }

// Locate finds what a source is locked at in root, the root's directory. Its
// error says what to do.
func Locate(root fs.FS, source string) (Source, Locked, error) {
	s, err := Parse(source)
	if err != nil {
		return s, Locked{}, err
	}
	l, err := ReadLock(root)
	if err != nil {
		return s, Locked{}, err
	}
	one, err := l.Find(s)
	return s, one, err
}

// Missing is the error of a source whose directory is not there; cached tells
// whether the commit's tree is.
func Missing(s Source, l Locked, cached bool) error {
	if !cached {
		return fmt.Errorf("%s is locked at commit %s, which is not in the cache: %w, which fetches it", s, short(l.Commit), ErrInit)
	}
	return fmt.Errorf("%s, commit %s, has no directory %s. Name one that it has, or another ref", s, short(l.Commit), s.Dir)
}
