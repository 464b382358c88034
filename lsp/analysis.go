package lsp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/clusterplan/clusterplan/lang"
)

// maxText is how long a file may be that is looked at: a parser takes memory
// and time by the length of what it reads, and here it reads at every keystroke.
const maxText = 1 << 20

// analysis is what is known of directories: which have to be looked at, and
// what was found.
type analysis struct {
	wake chan struct{}

	mu      sync.Mutex
	serial  uint64            // counts changes
	changed map[string]uint64 // directories to look at, and the change that said so last
	found   map[string]result // by directory
	told    map[string]bool   // files for which the editor shows something
}

// result is what one look at a directory has found.
type result struct {
	files map[string][]diagnostic
	uses  []string // directories of modules that it calls
}

func (a *analysis) init() {
	a.wake = make(chan struct{}, 1)
	a.changed, a.found, a.told = map[string]uint64{}, map[string]result{}, map[string]bool{}
}

// dirty says that a file has changed: its directory is looked at again, and
// those that use it as a module.
func (a *analysis) dirty(path string) {
	dir := filepath.Dir(path)
	a.mu.Lock()
	a.serial++
	a.changed[dir] = a.serial
	for user, r := range a.found {
		if slices.Contains(r.uses, dir) {
			a.changed[user] = a.serial
		}
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // it will look at this one as well
	}
}

// next is the directory that changed last.
func (a *analysis) next() (dir string, serial uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for d, n := range a.changed {
		if n > serial || n == serial && d < dir {
			dir, serial = d, n
		}
	}
	return dir, serial
}

// stale tells whether the directory has changed since.
func (a *analysis) stale(dir string, serial uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed[dir] != serial
}

// analyse looks at what has changed until ctx ends. There is one of it: what
// the editor is told comes in the order of what it did.
func (s *server) analyse(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.analysis.wake:
		}
		for ctx.Err() == nil {
			dir, serial := s.analysis.next()
			if serial == 0 {
				break
			}
			s.lookAt(ctx, dir, serial)
		}
	}
}

// lookAt works a directory's diagnostics out and publishes them, unless it
// changes meanwhile: then somebody has to look again.
func (s *server) lookAt(ctx context.Context, dir string, serial uint64) {
	v := s.view(dir)
	r, ok := s.diagnose(v, func() bool { return ctx.Err() != nil || s.analysis.stale(dir, serial) })
	if !ok {
		return
	}
	a := &s.analysis
	a.mu.Lock()
	if a.changed[dir] != serial {
		a.mu.Unlock()
		return
	}
	delete(a.changed, dir)
	concerned := map[string]bool{}
	for path := range a.found[dir].files {
		concerned[path] = true
	}
	for path := range r.files {
		concerned[path] = true
	}
	for path := range v.open {
		if filepath.Dir(path) == dir {
			concerned[path] = true
		}
	}
	if a.found[dir] = r; len(r.files) == 0 && len(r.uses) == 0 {
		delete(a.found, dir)
	}
	var out []publishParams
	for path := range concerned {
		p := publishParams{URI: uriOf(path), Diagnostics: []diagnostic{}}
		for _, other := range a.found { // a module's file is found by itself and by who uses it
			for _, d := range other.files[path] {
				if !slices.Contains(p.Diagnostics, d) {
					p.Diagnostics = append(p.Diagnostics, d)
				}
			}
		}
		slices.SortFunc(p.Diagnostics, func(a, b diagnostic) int {
			return cmp.Or(cmp.Compare(a.Range.Start.Line, b.Range.Start.Line), cmp.Compare(a.Range.Start.Character, b.Range.Start.Character),
				cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Message, b.Message))
		})
		doc := v.open[path]
		if doc != nil {
			p.Version = &doc.version
		}
		if len(p.Diagnostics) == 0 && !a.told[path] && doc == nil {
			continue
		}
		a.told[path] = len(p.Diagnostics) > 0
		out = append(out, p)
	}
	a.mu.Unlock()
	slices.SortFunc(out, func(a, b publishParams) int { return cmp.Compare(a.URI, b.URI) })
	for _, p := range out {
		if err := s.push(ctx, "textDocument/publishDiagnostics", p); err != nil {
			return // the editor is gone, which ends ctx
		}
	}
}

// view is a directory at one moment: files on disk under the open documents.
type view struct {
	dir  string
	fsys *overlay
	open map[string]*document // all that are open, by path
	enc  encoding
	// locate is Config.Module
	locate func(root fs.FS, source, from string) (dir, home string, err error)
}

func (s *server) view(dir string) view {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{dir: dir, open: make(map[string]*document, len(s.open)), enc: s.encoding, locate: s.conf.Module}
	for path, d := range s.open {
		v.open[path] = d
	}
	v.fsys = newOverlay(os.DirFS(dir), dir, v.open)
	return v
}

// anyOpen tells whether a document of the directory is open.
func (v *view) anyOpen() bool {
	for path := range v.open {
		if filepath.Dir(path) == v.dir {
			return true
		}
	}
	return false
}

// module finds a module as it is now: its files on disk under the open documents.
func (v *view) module(source, from string) (lang.Module, error) {
	at, home, err := v.locate(v.fsys, source, from)
	if err != nil {
		return lang.Module{}, err
	}
	dir := filepath.Join(v.dir, at)
	files := os.DirFS(dir)
	if home != "" {
		sub, err := filepath.Rel(home, at)
		if err != nil {
			return lang.Module{}, err
		}
		files = homed{filepath.Join(v.dir, home), sub}
	}
	return lang.Module{FS: newOverlay(files, dir, v.open), Dir: at}, nil
}

// inDirectories finds modules in directories only.
func inDirectories(_ fs.FS, source, from string) (dir, home string, err error) {
	if first, _, _ := strings.Cut(source, "/"); first != "." && first != ".." {
		return "", "", errors.New("a module is a directory that begins with ./ or ../; name one")
	}
	return path.Join(from, source), "", nil
}

// names are the directory's files whose names end in one of the suffixes. Pipes are
// none: to read one takes until somebody writes to it.
func (v *view) names(suffixes ...string) []string {
	entries, err := v.fsys.ReadDir(".")
	if err != nil {
		return nil // Load tells
	}
	var out []string
	for _, e := range entries {
		for _, suffix := range suffixes {
			if e.IsDir() || !strings.HasSuffix(e.Name(), suffix) || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if info, err := v.fsys.Stat(e.Name()); err == nil && info.Mode().IsRegular() {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// Endings of files' names.
const (
	hclSuffix      = lang.Suffix
	jsonSuffix     = ".cluster.json"
	varsSuffix     = ".vars.hcl"
	scenarioSuffix = ".scenario.hcl"
)

// diagnose finds what is wrong in a directory. False: it was given up.
func (s *server) diagnose(v view, stale func() bool) (r result, ok bool) {
	r.files = map[string][]diagnostic{}
	if !v.anyOpen() {
		return r, true // what was shown goes
	}
	defer func() { // the editor keeps its other answers
		if p := recover(); p != nil {
			s.conf.Log.Error("panic", "directory", v.dir, "panic", p, "stack", string(debug.Stack()))
			r.files[s.mainFile(v)] = []diagnostic{{Severity: 1, Source: source, Message: fmt.Sprintf("Looking at this definition failed: %v. Please report it with the definition; clusterplan validate tells what is wrong with it meanwhile.", p)}}
			ok = true
		}
	}()
	var diags hcl.Diagnostics
	if len(v.names(hclSuffix, jsonSuffix)) > 0 {
		o := s.conf.Language
		o.FS, o.Dir, o.Parse, o.AllowUnset = v.fsys, v.dir, s.parse, true
		o.Modules = v.module
		config, more := lang.Load(o)
		diags = append(diags, more...)
		if stale() {
			return r, false
		}
		_, more = config.Evaluate(nil)
		diags = append(diags, more...)
		if stale() {
			return r, false
		}
		for _, name := range v.names(varsSuffix) {
			if name == "auto"+varsSuffix || strings.HasSuffix(name, ".auto"+varsSuffix) {
				continue // they were loaded
			}
			if src, err := fs.ReadFile(v.fsys, name); err == nil {
				diags = append(diags, config.CheckVars(filepath.Join(v.dir, name), src)...)
			}
		}
	} else {
		for _, name := range v.names(varsSuffix) {
			diags = append(diags, s.syntax(v, name)...)
		}
	}
	for _, name := range v.names(scenarioSuffix) {
		diags = append(diags, s.syntax(v, name)...)
	}
	seen := map[*hcl.Diagnostic]bool{}
	for _, d := range diags {
		if seen[d] {
			continue
		}
		seen[d] = true
		path, one := s.convert(v, d)
		if !slices.Contains(r.files[path], one) {
			r.files[path] = append(r.files[path], one)
		}
	}
	r.uses = s.moduleDirs(v.dir)
	return r, true
}

// syntax is what is wrong with a file that is only looked at by itself.
func (s *server) syntax(v view, name string) hcl.Diagnostics {
	src, err := fs.ReadFile(v.fsys, name)
	if err != nil {
		return nil
	}
	_, diags := s.parse(src, filepath.Join(v.dir, name))
	return diags
}

const source = "clusterplan"

// convert is a diagnostic as the protocol has it, and the file it is about.
func (s *server) convert(v view, d *hcl.Diagnostic) (string, diagnostic) {
	out := diagnostic{Severity: 1, Source: source, Message: d.Summary + ": " + d.Detail}
	if d.Severity == hcl.DiagWarning {
		out.Severity = 2
	}
	if d.Subject == nil {
		return s.mainFile(v), out
	}
	path := d.Subject.Filename
	if !filepath.IsAbs(path) {
		return s.mainFile(v), out
	}
	doc := v.open[path]
	if doc == nil {
		doc = s.onDisk(path)
	}
	if doc == nil {
		return path, out
	}
	start, end := d.Subject.Start.Byte, d.Subject.End.Byte
	if end == start && end < doc.lineEnd(int(doc.position(start, utf8s).Line)) {
		end++ // something to point at
	}
	out.Range = doc.textRange(start, end, v.enc)
	return path, out
}

// mainFile is where that is told which has no place: the open document of the
// directory, else its first file.
func (s *server) mainFile(v view) string {
	first := ""
	for path := range v.open {
		if filepath.Dir(path) == v.dir && (first == "" || path < first) {
			first = path
		}
	}
	return first
}

// parsedFile is a file that was parsed, for the next time.
type parsedFile struct {
	src   []byte
	file  *hcl.File
	diags hcl.Diagnostics
}

// parse reads a file, or knows it still.
func (s *server) parse(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	s.mu.Lock()
	known, ok := s.parsed[name]
	s.mu.Unlock()
	if ok && bytes.Equal(known.src, src) {
		return known.file, known.diags
	}
	p := parsedFile{src: src}
	if len(src) > maxText {
		p.file = &hcl.File{Body: &hclsyntax.Body{}, Bytes: src}
		p.diags = hcl.Diagnostics{{Severity: hcl.DiagWarning, Summary: "File too long for the editor", Subject: &hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos},
			Detail: fmt.Sprintf("The language server reads files up to %d KiB, so that it doesn't see what is in this one. Split it; or run clusterplan validate, which reads all.", maxText>>10)}}
	} else {
		p.file, p.diags = lang.ParseParts(src, name)
	}
	s.mu.Lock()
	s.parsed[name] = p
	s.mu.Unlock()
	return p.file, p.diags
}

// onDisk is a file that isn't open; nil: it can't be read.
func (s *server) onDisk(path string) *document {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxText {
		return nil
	}
	s.mu.Lock()
	known, ok := s.disk[path]
	s.mu.Unlock()
	if ok && known.stamp == info.ModTime() && int64(len(known.text)) == info.Size() {
		return known
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	doc := newDocument(text, 0)
	doc.outline, doc.stamp = outlineOf(text), info.ModTime()
	s.mu.Lock()
	s.disk[path] = doc
	s.mu.Unlock()
	return doc
}

// file is a document, open or not; nil: there is none.
func (s *server) file(path string) *document {
	s.mu.Lock()
	doc := s.open[path]
	s.mu.Unlock()
	if doc == nil {
		doc = s.onDisk(path)
	}
	return doc
}
