package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/creachadair/jrpc2"

	"github.com/clusterplan/clusterplan/lang"
)

// Codes of the protocol beside JSON-RPC's own.
const (
	notInitialized jrpc2.Code = -32002
	requestFailed  jrpc2.Code = -32803
)

func invalid(format string, args ...any) error {
	return jrpc2.Errorf(jrpc2.InvalidParams, format, args...)
}

func failed(format string, args ...any) error {
	return jrpc2.Errorf(requestFailed, format, args...)
}

// server is one editor's. Its methods are called by jrpc2, requests several at
// once; notifications in their order, and what comes behind one sees its effect.
type server struct {
	conf  Config
	types []lang.BlockType
	push  func(ctx context.Context, method string, params any) error
	ask   func(ctx context.Context, method string, params any) error
	stop  func()
	spawn func(func()) // runs beside the rest, until the server ends

	mu       sync.Mutex
	state    int
	encoding encoding
	snippets bool
	versions bool     // edits carry the versions of documents
	watch    bool     // the editor can be asked to watch files
	roots    []string // of the workspace; none: any file is in it
	open     map[string]*document
	disk     map[string]*document // files that are not open, as they were read last
	parsed   map[string]parsedFile
	analysis analysis
}

// The life of a server.
const (
	stateNew = iota
	stateReady
	stateShutDown
)

func newServer(c Config) *server {
	if c.Module == nil {
		c.Module = inDirectories
	}
	s := &server{conf: c, types: lang.Language(c.Language), encoding: utf16,
		open: map[string]*document{}, disk: map[string]*document{}, parsed: map[string]parsedFile{}}
	s.analysis.init()
	return s
}

func (s *server) wasShutDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == stateShutDown
}

type handler func(context.Context, json.RawMessage) (any, error)

// Assign finds the handler of a method; nil: there is no such method.
func (s *server) Assign(_ context.Context, method string) jrpc2.Handler {
	h := s.method(method)
	if h == nil {
		if strings.HasPrefix(method, "$/") { // may be ignored; a request is still told
			h = func(context.Context, json.RawMessage) (any, error) {
				return nil, jrpc2.Errorf(jrpc2.MethodNotFound, "there is no method %s", method)
			}
		} else {
			return nil
		}
	}
	return func(ctx context.Context, req *jrpc2.Request) (out any, err error) {
		if err := s.may(method); err != nil {
			return nil, err
		}
		defer func() { // an editor loses an answer then, and not its server
			if r := recover(); r != nil {
				s.conf.Log.Error("panic", "method", method, "panic", r, "stack", string(debug.Stack()))
				err = jrpc2.Errorf(jrpc2.InternalError, "%s failed: %v", method, r)
			}
		}()
		var params json.RawMessage
		if req.HasParams() {
			if err := req.UnmarshalParams(&params); err != nil {
				return nil, invalid("%v", err)
			}
		}
		out, err = h(ctx, params)
		if err != nil && req.IsNotification() {
			s.conf.Log.Warn("notification refused", "method", method, "error", err)
		}
		return out, err
	}
}

// may tells whether a method may be called now.
func (s *server) may(method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case method == "exit", method == "$/cancelRequest":
	case s.state == stateNew && method != "initialize":
		return jrpc2.Errorf(notInitialized, "the first request is initialize, not %s", method)
	case s.state == stateReady && method == "initialize":
		return jrpc2.Errorf(jrpc2.InvalidRequest, "the server is initialized already")
	case s.state == stateShutDown:
		return jrpc2.Errorf(jrpc2.InvalidRequest, "the server is shut down; only exit can follow")
	}
	return nil
}

func (s *server) method(name string) handler {
	switch name {
	case "initialize":
		return s.initialize
	case "initialized":
		return s.initialized
	case "shutdown":
		return func(context.Context, json.RawMessage) (any, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.state = stateShutDown
			return nil, nil
		}
	case "exit":
		return func(context.Context, json.RawMessage) (any, error) {
			s.stop()
			return nil, nil
		}
	case "$/cancelRequest":
		return s.cancel
	case "$/setTrace", "textDocument/didSave", "workspace/didChangeConfiguration":
		return func(context.Context, json.RawMessage) (any, error) { return nil, nil }
	case "textDocument/didOpen":
		return s.didOpen
	case "textDocument/didChange":
		return s.didChange
	case "textDocument/didClose":
		return s.didClose
	case "workspace/didChangeWatchedFiles":
		return s.didChangeWatched
	case "workspace/didChangeWorkspaceFolders":
		return s.didChangeFolders
	case "textDocument/completion":
		return at(s, s.completion)
	case "textDocument/hover":
		return at(s, s.hover)
	case "textDocument/definition":
		return at(s, s.definition)
	case "textDocument/prepareRename":
		return at(s, s.prepareRename)
	case "textDocument/references":
		return s.references
	case "textDocument/rename":
		return s.rename
	case "textDocument/documentSymbol":
		return s.documentSymbol
	case "textDocument/formatting":
		return s.formatting
	}
	return nil
}

// spot is a place in an open document.
type spot struct {
	path   string
	doc    *document
	offset int
	enc    encoding
}

// at makes a handler of one that wants to know a place.
func at[T any](s *server, f func(spot) (T, error)) handler {
	return func(_ context.Context, raw json.RawMessage) (any, error) {
		p, err := read[positionParams](raw)
		if err != nil {
			return nil, err
		}
		where, err := s.spot(p)
		if err != nil {
			return nil, err
		}
		return f(where)
	}
}

func (s *server) spot(p positionParams) (spot, error) {
	path, doc, err := s.document(p.TextDocument.URI)
	if err != nil {
		return spot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return spot{path, doc, doc.offset(p.Position, s.encoding), s.encoding}, nil
}

// document finds an open document.
func (s *server) document(uri string) (string, *document, error) {
	path, err := s.pathOf(uri)
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	doc, ok := s.open[path]
	if !ok {
		return "", nil, invalid("%s is not open", uri)
	}
	return path, doc, nil
}

// pathOf is the file that a URI names.
func (s *server) pathOf(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" || u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
		return "", invalid("%.200q is no file on this machine: a document is file:///PATH", uri)
	}
	path := filepath.Clean(u.Path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inWorkspace(path) {
		return "", invalid("%s is not in the workspace (%s)", path, strings.Join(s.roots, ", "))
	}
	return path, nil
}

func (s *server) inWorkspace(path string) bool {
	for _, root := range s.roots {
		if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return len(s.roots) == 0
}

func uriOf(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

func (s *server) initialize(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[initializeParams](raw)
	if err != nil {
		return nil, err
	}
	var uris []string
	for _, f := range p.WorkspaceFolders {
		uris = append(uris, f.URI)
	}
	if len(uris) == 0 && p.RootURI != nil && *p.RootURI != "" {
		uris = []string{*p.RootURI}
	}
	if len(uris) == 0 && p.RootPath != nil && *p.RootPath != "" {
		uris = []string{uriOf(*p.RootPath)}
	}
	var roots []string
	for _, uri := range uris {
		root, err := s.pathOf(uri)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.roots = stateReady, roots
	for _, e := range p.Capabilities.General.PositionEncodings {
		if e == string(utf8s) {
			s.encoding = utf8s
		}
	}
	s.snippets = p.Capabilities.TextDocument.Completion.CompletionItem.SnippetSupport
	s.versions = p.Capabilities.Workspace.WorkspaceEdit.DocumentChanges
	s.watch = p.Capabilities.Workspace.DidChangeWatchedFiles.DynamicRegistration
	return object{
		"serverInfo": object{"name": "clusterplan", "version": s.conf.Language.Version},
		"capabilities": object{
			"positionEncoding":           s.encoding,
			"textDocumentSync":           object{"openClose": true, "change": 2},
			"completionProvider":         object{"triggerCharacters": []string{".", "\"", "="}},
			"hoverProvider":              true,
			"definitionProvider":         true,
			"referencesProvider":         true,
			"documentSymbolProvider":     true,
			"documentFormattingProvider": true,
			"renameProvider":             object{"prepareProvider": true},
			"workspace":                  object{"workspaceFolders": object{"supported": true, "changeNotifications": true}},
		},
	}, nil
}

// initialized asks the editor to tell of files that change on disk.
func (s *server) initialized(ctx context.Context, _ json.RawMessage) (any, error) {
	s.mu.Lock()
	watch := s.watch
	s.mu.Unlock()
	if watch {
		s.spawn(func() {
			err := s.ask(ctx, "client/registerCapability", object{"registrations": []object{{
				"id": "files", "method": "workspace/didChangeWatchedFiles",
				"registerOptions": object{"watchers": []object{{"globPattern": "**/*.{cluster.hcl,cluster.json,vars.hcl,scenario.hcl}"}}},
			}}})
			if err != nil && !errors.Is(err, context.Canceled) {
				s.conf.Log.Warn("the editor doesn't watch files", "error", err)
			}
		})
	}
	return nil, nil
}

// cancel gives a request up; one that was answered is none of ours any more.
func (s *server) cancel(ctx context.Context, raw json.RawMessage) (any, error) {
	p, err := read[struct {
		ID json.RawMessage `json:"id"`
	}](raw)
	if err != nil {
		return nil, err
	}
	jrpc2.ServerFromContext(ctx).CancelRequest(string(p.ID))
	return nil, nil
}

func (s *server) didOpen(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[didOpenParams](raw)
	if err != nil {
		return nil, err
	}
	path, err := s.pathOf(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	s.put(path, newDocument([]byte(p.TextDocument.Text), p.TextDocument.Version))
	return nil, nil
}

func (s *server) didChange(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[didChangeParams](raw)
	if err != nil {
		return nil, err
	}
	path, doc, err := s.document(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	enc := s.encoding
	s.mu.Unlock()
	s.put(path, doc.change(p.ContentChanges, p.TextDocument.Version, enc))
	return nil, nil
}

// put takes a document's new text over.
func (s *server) put(path string, doc *document) {
	if len(doc.text) <= maxText {
		doc.outline = outlineOf(doc.text)
	} else {
		doc.outline = &block{}
	}
	s.mu.Lock()
	s.open[path] = doc
	delete(s.disk, path)
	s.mu.Unlock()
	s.analysis.dirty(path)
}

func (s *server) didClose(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[documentParams](raw)
	if err != nil {
		return nil, err
	}
	path, _, err := s.document(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.open, path)
	delete(s.parsed, path)
	s.mu.Unlock()
	s.analysis.dirty(path)
	return nil, nil
}

func (s *server) didChangeWatched(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[watchedParams](raw)
	if err != nil {
		return nil, err
	}
	for _, c := range p.Changes {
		path, err := s.pathOf(c.URI)
		if err != nil {
			continue // outside of what this server looks at
		}
		s.mu.Lock()
		delete(s.disk, path)
		s.mu.Unlock()
		s.analysis.dirty(path)
	}
	return nil, nil
}

func (s *server) didChangeFolders(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[foldersParams](raw)
	if err != nil {
		return nil, err
	}
	rootOf := func(f folder) (string, error) {
		u, err := url.Parse(f.URI)
		if err != nil || u.Scheme != "file" || !filepath.IsAbs(u.Path) {
			return "", fmt.Errorf("%.200q is no directory on this machine", f.URI)
		}
		return filepath.Clean(u.Path), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range p.Event.Removed {
		if root, err := rootOf(f); err == nil {
			for i, r := range s.roots {
				if r == root {
					s.roots = append(s.roots[:i:i], s.roots[i+1:]...)
					break
				}
			}
		}
	}
	for _, f := range p.Event.Added {
		root, err := rootOf(f)
		if err != nil {
			return nil, invalid("%v", err)
		}
		s.roots = append(s.roots, root)
	}
	return nil, nil
}
