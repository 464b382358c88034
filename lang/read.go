package lang

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Files are read one by one, in order, and parsed beside each other: a
// definition of many modules is read by all processors. What comes of them is
// taken in the order of the files again, so that it doesn't depend on who was
// sooner.

// reader parses the files of all modules.
type reader struct {
	free  chan struct{}     // as many parse at a time
	ahead map[string]*files // of modules that were not asked for yet, by dir
}

// lookahead is how many modules are parsed before they are asked for: enough to
// keep the processors busy, and few, since trees take memory.
const lookahead = 8

func newReader() *reader {
	return &reader{free: make(chan struct{}, runtime.GOMAXPROCS(0)), ahead: map[string]*files{}}
}

// files are those of one directory, being parsed.
type files struct {
	diags  hcl.Diagnostics // of the directory
	unread bool
	list   []*parsing
}

// parsing is a file that is being parsed.
type parsing struct {
	name     string
	done     chan struct{}
	file     *hcl.File
	diags    hcl.Diagnostics
	panicked any
}

// openFiles reads the definition's files in a directory, in the order of their
// names, and has r parse them.
func openFiles(o *Options, r *reader) *files {
	out := &files{}
	var names []string
	if o.FS != nil {
		entries, err := fs.ReadDir(o.FS, ".")
		if err != nil {
			why := err.Error()
			if errors.Is(err, fs.ErrNotExist) {
				why = "there is no such directory"
			}
			out.unread = true
			out.diags = hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Can't read the definition", Detail: fmt.Sprintf("Directory %s: %s.", o.Dir, why)}}
			return out
		}
		for _, e := range entries {
			name := e.Name()
			switch {
			case e.IsDir() || strings.HasPrefix(name, ".") || !strings.HasSuffix(name, hclSuffix) && !strings.HasSuffix(name, jsonSuffix):
			case !ends(o.FS, e):
				out.unread = true
				out.diags = append(out.diags, endless("Can't read a file of the definition", path.Join(o.Dir, name)))
			default:
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 && len(out.diags) == 0 {
		out.unread = true
		out.diags = hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No definition here",
			Detail: fmt.Sprintf("Directory %s has no file whose name ends in %s or %s. Name another directory, or write a main%s.", o.Dir, hclSuffix, jsonSuffix, hclSuffix)}}
		return out
	}
	slices.Sort(names)
	for _, name := range names {
		src, err := fs.ReadFile(o.FS, name)
		full := path.Join(o.Dir, name)
		if err != nil {
			out.diags = append(out.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Can't read a file of the definition", Detail: fmt.Sprintf("%s: %s.", full, err)})
			out.unread = true
			continue
		}
		p := &parsing{name: full, done: make(chan struct{})}
		out.list = append(out.list, p)
		go func() {
			r.free <- struct{}{}
			defer func() {
				p.panicked = recover()
				<-r.free
				close(p.done)
			}()
			p.file, p.diags = o.parse(src, full)
		}()
	}
	return out
}

// ends tells whether what is found in a directory, or what that is a link to, can be read
// to its end: to read a pipe takes until somebody writes to it.
func ends(dir fs.FS, e fs.DirEntry) bool {
	mode := e.Type()
	if mode&fs.ModeSymlink != 0 {
		if info, err := fs.Stat(dir, e.Name()); err == nil { // else reading it says why
			mode = info.Mode()
		}
	}
	return mode&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) == 0
}

func endless(summary, full string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: full + ": it is a pipe, a socket or a device, and no file. Put a file there, or name it otherwise; a vars file that --var-file names may be a pipe."}
}

// bodies waits for a module's files.
func (c *Config) bodies(f *files) ([]hcl.Body, hcl.Diagnostics) {
	diags := f.diags
	if f.unread {
		c.unread()
	}
	var bodies []hcl.Body
	for _, p := range f.list {
		<-p.done
		if p.panicked != nil {
			panic(p.panicked) // where the caller can catch it
		}
		diags = append(diags, p.diags...)
		if p.diags.HasErrors() {
			c.unread()
			if p.file != nil {
				c.tear(p)
			}
		}
		if p.file != nil && p.file.Body != nil {
			c.files[p.name] = &hcl.File{Bytes: p.file.Bytes, Nav: p.file.Nav} // what is in the tree is read once
			bodies = append(bodies, p.file.Body)
		}
	}
	return bodies, diags
}

// unread notes that a file, or all of them, could not be read: what seems to be
// missing may stand there.
func (c *Config) unread() { c.unparsedOwn, c.root.unparsed = true, true }

// parse reads a file by the caller's parser, where there is one.
func (o *Options) parse(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if o.Parse != nil {
		return o.Parse(src, name)
	}
	return Parse(src, name)
}
