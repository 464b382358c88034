package planfile

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// Types of what lies at a path.
const (
	typeFile   = "file"
	typeDir    = "dir"
	typeOther  = "other" // a link, a socket, a device
	typeAbsent = "absent"
)

// Source is what was learnt of one path of the definition's directory. What
// was not asked for is not in it.
type Source struct {
	Path    string  `json:"path"`
	Type    string  `json:"type,omitempty"`
	Text    *string `json:"text,omitempty"`    // of a file that was read
	Data    []byte  `json:"data,omitempty"`    // the same, of one that is no text
	Listed  bool    `json:"listed,omitempty"`  // it is a directory, and Entries are all that is in it
	Entries []Entry `json:"entries,omitempty"` // by name
	Denied  bool    `json:"denied,omitempty"`  // it could not be read, for lack of permission
	Error   string  `json:"error,omitempty"`   // it could not be read, for that
}

// Entry is a name in a directory.
type Entry struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Recorder reads a directory and keeps what was read. A path that is read
// twice is the same both times, whatever became of it meanwhile.
type Recorder struct {
	fsys fs.FS
	mu   sync.Mutex
	seen map[string]*Source
}

// Record records what is read of fsys.
func Record(fsys fs.FS) *Recorder { return &Recorder{fsys: fsys, seen: map[string]*Source{}} }

// Sources are what was read, by path.
func (r *Recorder) Sources() []Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Source, 0, len(r.seen))
	for _, path := range slices.Sorted(maps.Keys(r.seen)) {
		out = append(out, *r.seen[path])
	}
	return out
}

func (r *Recorder) at(name string) *Source {
	s := r.seen[name]
	if s == nil {
		s = &Source{Path: name}
		r.seen[name] = s
	}
	return s
}

// failed keeps why name could not be read.
func (s *Source) failed(err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Type = typeAbsent
	case errors.Is(err, fs.ErrPermission):
		s.Denied = true
	default:
		s.Error = err.Error()
	}
}

func valid(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// ReadFile is fs.ReadFileFS.
func (r *Recorder) ReadFile(name string) ([]byte, error) {
	if err := valid("read", name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.at(name)
	if _, known := s.content(); !known && s.Type != typeAbsent {
		data, err := fs.ReadFile(r.fsys, name)
		switch {
		case err != nil:
			s.failed(err)
		case utf8.Valid(data):
			text := string(data)
			s.Text = &text
		default:
			s.Data = data
		}
	}
	return s.readFile()
}

// ReadDir is fs.ReadDirFS.
func (r *Recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := valid("list", name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.at(name)
	if !s.Listed && s.Type != typeAbsent {
		entries, err := fs.ReadDir(r.fsys, name)
		if err != nil {
			s.failed(err)
		} else {
			s.Listed, s.Type = true, typeDir
			for _, e := range entries {
				s.Entries = append(s.Entries, Entry{e.Name(), typeOf(e.Type())})
			}
			slices.SortFunc(s.Entries, func(a, b Entry) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
		}
	}
	return s.readDir()
}

// Stat is fs.StatFS.
func (r *Recorder) Stat(name string) (fs.FileInfo, error) {
	if err := valid("stat", name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.at(name)
	if s.Type == "" {
		info, err := fs.Stat(r.fsys, name)
		if err != nil {
			s.failed(err)
		} else {
			s.Type = typeOf(info.Mode().Type())
		}
	}
	return s.stat()
}

// Open is fs.FS.
func (r *Recorder) Open(name string) (fs.File, error) {
	info, err := r.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		entries, err := r.ReadDir(name)
		return &opened{info: info, entries: entries}, err
	}
	data, err := r.ReadFile(name)
	return &opened{info: info, Reader: bytes.NewReader(data)}, err
}

func typeOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return typeFile
	case m.IsDir():
		return typeDir
	}
	return typeOther
}

// held is the definition's directory as a plan file has it.
type held map[string]*Source

// FS is the definition's directory as it was read for the plan. Nothing else
// of it is there.
func (f *File) FS() fs.FS {
	h := make(held, len(f.Sources))
	for i := range f.Sources {
		h[f.Sources[i].Path] = &f.Sources[i]
	}
	return h
}

// errNotHeld: the name was not known, or not asked for, when it was planned.
var errNotHeld = errors.New("the plan file does not hold it, for it was not read to make the plan; apply without a plan file")

func (h held) find(op, name string) (*Source, error) {
	if err := valid(op, name); err != nil {
		return nil, err
	}
	if s := h[name]; s != nil {
		return s, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: errNotHeld}
}

func (h held) ReadFile(name string) ([]byte, error) {
	s, err := h.find("read", name)
	if err != nil {
		return nil, err
	}
	return s.readFile()
}

func (h held) ReadDir(name string) ([]fs.DirEntry, error) {
	s, err := h.find("list", name)
	if err != nil {
		return nil, err
	}
	return s.readDir()
}

func (h held) Stat(name string) (fs.FileInfo, error) {
	s, err := h.find("stat", name)
	if err != nil {
		return nil, err
	}
	return s.stat()
}

func (h held) Open(name string) (fs.File, error) {
	s, err := h.find("open", name)
	if err != nil {
		return nil, err
	}
	info, err := s.stat()
	if err != nil {
		return nil, err
	}
	if s.Listed {
		entries, err := s.readDir()
		return &opened{info: info, entries: entries}, err
	}
	data, err := s.readFile()
	if err != nil {
		return nil, err
	}
	return &opened{info: info, Reader: bytes.NewReader(data)}, nil
}

func (s *Source) content() ([]byte, bool) {
	if s.Text != nil {
		return []byte(*s.Text), true
	}
	return bytes.Clone(s.Data), s.Data != nil
}

// failure is the error of a path that can't be used; nil where nothing is known of one.
func (s *Source) failure(op string) error {
	var err error
	switch {
	case s.Type == typeAbsent:
		err = fs.ErrNotExist
	case s.Denied:
		err = fs.ErrPermission
	case s.Error != "":
		err = errors.New(s.Error)
	default:
		return nil
	}
	return &fs.PathError{Op: op, Path: s.Path, Err: err}
}

func (s *Source) readFile() ([]byte, error) {
	if data, ok := s.content(); ok {
		return data, nil
	}
	if err := s.failure("read"); err != nil {
		return nil, err
	}
	return nil, &fs.PathError{Op: "read", Path: s.Path, Err: errNotHeld}
}

func (s *Source) readDir() ([]fs.DirEntry, error) {
	if !s.Listed {
		if err := s.failure("list"); err != nil {
			return nil, err
		}
		return nil, &fs.PathError{Op: "list", Path: s.Path, Err: errNotHeld}
	}
	out := make([]fs.DirEntry, len(s.Entries))
	for i, e := range s.Entries {
		out[i] = info{name: e.Name, typ: e.Type}
	}
	return out, nil
}

func (s *Source) stat() (fs.FileInfo, error) {
	data, read := s.content()
	typ := s.Type
	switch {
	case typ == "" && read:
		typ = typeFile
	case typ == "" || typ == typeAbsent:
		if err := s.failure("stat"); err != nil {
			return nil, err
		}
		return nil, &fs.PathError{Op: "stat", Path: s.Path, Err: errNotHeld}
	}
	name := s.Path
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			name = name[i+1:]
			break
		}
	}
	return info{name: name, typ: typ, size: int64(len(data))}, nil
}

// info is an fs.FileInfo and an fs.DirEntry.
type info struct {
	name, typ string
	size      int64
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) Mode() fs.FileMode          { return i.Type() }
func (i info) ModTime() time.Time         { return time.Time{} }
func (i info) IsDir() bool                { return i.typ == typeDir }
func (i info) Sys() any                   { return nil }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) Type() fs.FileMode {
	switch i.typ {
	case typeFile:
		return 0
	case typeDir:
		return fs.ModeDir
	}
	return fs.ModeIrregular
}

// opened is a file or directory that is read to its end.
type opened struct {
	info fs.FileInfo
	*bytes.Reader
	entries []fs.DirEntry
}

func (o *opened) Stat() (fs.FileInfo, error) { return o.info, nil }
func (o *opened) Close() error               { return nil }
func (o *opened) Read(p []byte) (int, error) {
	if o.Reader == nil {
		return 0, &fs.PathError{Op: "read", Path: o.info.Name(), Err: errors.New("is a directory")}
	}
	return o.Reader.Read(p)
}
