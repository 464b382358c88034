package lang

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/clusterplan/clusterplan/lang/schema"
)

// addFileFunctions adds those that read the definition's directory. Paths are
// relative to it and can't leave it: a definition is what its directory holds.
func addFileFunctions(m map[string]function.Function, fsys fs.FS) {
	read := func(name string) ([]byte, error) {
		clean := path.Clean(name)
		if !validPath(fsys, clean) {
			return nil, fmt.Errorf("%s lies outside the definition's directory; put the file into it and name it from there", name)
		}
		b, err := fs.ReadFile(fsys, clean)
		if err != nil {
			return nil, unreadable(clean, err)
		}
		return b, nil
	}
	text := func(name string) (string, error) {
		b, err := read(name)
		if err != nil {
			return "", err
		}
		if !utf8.Valid(b) {
			return "", fmt.Errorf("%s is no text in UTF-8; use filebase64", name)
		}
		return string(b), nil
	}
	m["file"] = stringFunc(text)
	m["filebase64"] = stringFunc(func(name string) (string, error) {
		b, err := read(name)
		return base64.StdEncoding.EncodeToString(b), err
	})
	for name, sum := range map[string]func([]byte) string{
		"filemd5": sumOf(md5.New, inHex), "filesha1": sumOf(sha1.New, inHex), "filesha256": sumOf(sha256.New, inHex), "filesha512": sumOf(sha512.New, inHex),
		"filebase64sha256": sumOf(sha256.New, inBase64), "filebase64sha512": sumOf(sha512.New, inBase64),
	} {
		m[name] = stringFunc(func(name string) (string, error) {
			b, err := read(name)
			if err != nil {
				return "", err
			}
			return sum(b), nil
		})
	}
	m["fileexists"] = function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			clean := path.Clean(args[0].AsString())
			if !validPath(fsys, clean) {
				return cty.NilVal, function.NewArgErrorf(0, "%s lies outside the definition's directory", clean)
			}
			info, err := fs.Stat(fsys, clean)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return cty.NilVal, function.NewArgError(0, unreadable(clean, err))
			}
			return cty.BoolVal(err == nil && info.Mode().IsRegular()), nil
		},
	})
	m["fileset"] = function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}, {Name: "pattern", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Set(cty.String)),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			names, err := fileSet(fsys, path.Clean(args[0].AsString()), args[1].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			if len(names) == 0 {
				return cty.SetValEmpty(cty.String), nil
			}
			vals := make([]cty.Value, len(names))
			for i, n := range names {
				vals[i] = cty.StringVal(n)
			}
			return cty.SetVal(vals), nil
		},
	})
	m["templatefile"] = templateFunc("path", m, func(name string) (string, string, error) {
		src, err := text(name)
		return src, name, err
	})
	m["templatestring"] = templateFunc("template", m, func(src string) (string, string, error) {
		return src, "<template>", nil
	})
}

// fileSet lists the files under dir whose path from there matches the
// pattern; ** stands for any number of directories.
func fileSet(fsys fs.FS, dir, pattern string) ([]string, error) {
	if !validPath(fsys, dir) {
		return nil, function.NewArgErrorf(0, "%s lies outside the definition's directory", dir)
	}
	parts := strings.Split(path.Clean(pattern), "/")
	for _, p := range parts {
		if _, err := path.Match(p, ""); err != nil {
			return nil, function.NewArgErrorf(1, "%q is no pattern", pattern)
		}
	}
	var names []string
	err := fs.WalkDir(fsys, dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != dir && d.Name() == ".clusterplan" {
				return fs.SkipDir // what an apply leaves is no part of a definition
			}
			return nil
		}
		rel := strings.TrimPrefix(name, dir+"/")
		if d.Type().IsRegular() && matchPath(parts, strings.Split(rel, "/")) {
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		return nil, function.NewArgError(0, unreadable(dir, err))
	}
	sort.Strings(names)
	return names, nil
}

func matchPath(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		for i := range len(name) + 1 {
			if matchPath(pattern[1:], name[i:]) {
				return true
			}
		}
		return false
	}
	if len(name) == 0 {
		return false
	}
	ok, _ := path.Match(pattern[0], name[0])
	return ok && matchPath(pattern[1:], name[1:])
}

// templateFunc renders as a template what read makes of the first argument: the
// text, and its name in diagnostics. Within it every function can be called but
// those that render templates.
func templateFunc(param string, all map[string]function.Function, read func(string) (src, name string, err error)) function.Function {
	render := func(args []cty.Value) (cty.Value, error) {
		src, name, err := read(args[0].AsString())
		if err != nil {
			return cty.NilVal, function.NewArgError(0, err)
		}
		if d := numberBeyond([]byte(src), name, hcl.InitialPos, hclsyntax.LexTemplate); d != nil {
			return cty.NilVal, function.NewArgErrorf(0, "%s:%d: has a number that is too large: %s", name, d.Subject.Start.Line, schema.NumberLimits)
		}
		tmpl, diags := withLoops(src, name)(parseTemplate([]byte(src), name, hcl.InitialPos))
		if diags.HasErrors() {
			return cty.NilVal, function.NewArgError(0, diags)
		}
		vars := args[1]
		if t := vars.Type(); !t.IsObjectType() && !t.IsMapType() {
			return cty.NilVal, function.NewArgErrorf(1, "must be an object with the template's variables")
		}
		ctx := &hcl.EvalContext{Variables: vars.AsValueMap(), Functions: map[string]function.Function{}}
		for _, t := range tmpl.Variables() {
			if _, ok := ctx.Variables[t.RootName()]; !ok {
				return cty.NilVal, function.NewArgErrorf(1, "lacks %q, which the template uses at %s", t.RootName(), t.SourceRange())
			}
		}
		for fn, f := range all {
			if fn != "templatefile" && fn != "templatestring" {
				ctx.Functions[fn] = f
			}
		}
		v, diags := tmpl.Value(ctx)
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		return v, nil
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param, Type: cty.String}, {Name: "vars", Type: cty.DynamicPseudoType}},
		Type: func(args []cty.Value) (cty.Type, error) {
			if !args[0].IsKnown() || !args[1].IsKnown() {
				return cty.DynamicPseudoType, nil
			}
			v, err := render(args)
			if err != nil {
				return cty.NilType, err
			}
			return v.Type(), nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return render(args) },
	})
}

// moduleFunctions are the functions of a module. Files are named from the
// root's directory, as everywhere: "${path.module}/x" is the module's own.
func moduleFunctions(root fs.FS, m Module) map[string]function.Function {
	return withOwnAttributes(functions(moduleFS{root, m}))
}

// moduleFS is the root's directory, and a module's where that lies elsewhere.
type moduleFS struct {
	root   fs.FS
	module Module
}

// at finds whose file a path is.
func (f moduleFS) at(name string) (fs.FS, string) {
	if name == f.module.Dir {
		return f.module.FS, "."
	}
	if rest, ok := strings.CutPrefix(name, f.module.Dir+"/"); ok {
		return f.module.FS, rest
	}
	return f.root, name
}

func (f moduleFS) valid(name string) bool {
	_, rest := f.at(name)
	return fs.ValidPath(rest)
}

// Open is fs.FS.
func (f moduleFS) Open(name string) (fs.File, error) {
	fsys, rest := f.at(name)
	return fsys.Open(rest)
}

// ReadFile is fs.ReadFileFS.
func (f moduleFS) ReadFile(name string) ([]byte, error) {
	fsys, rest := f.at(name)
	return fs.ReadFile(fsys, rest)
}

// ReadDir is fs.ReadDirFS.
func (f moduleFS) ReadDir(name string) ([]fs.DirEntry, error) {
	fsys, rest := f.at(name)
	return fs.ReadDir(fsys, rest)
}

// Stat is fs.StatFS.
func (f moduleFS) Stat(name string) (fs.FileInfo, error) {
	fsys, rest := f.at(name)
	return fs.Stat(fsys, rest)
}

// validPath tells whether a path stays in what the definition may read.
func validPath(fsys fs.FS, name string) bool {
	if m, ok := fsys.(moduleFS); ok {
		return m.valid(name)
	}
	return fsys != nil && fs.ValidPath(name)
}
