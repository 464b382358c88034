package run

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/lang"
)

// Formatted is a file that is not in the canonical style.
type Formatted struct {
	Name          string
	Before, After []byte
}

// Format lays out the files in and below paths, tells those that change, and
// writes them if it is to. One that can't be read as HCL is told at the end and
// left alone, and the others go on.
func Format(paths []string, write bool, changed func(Formatted) error) error {
	bad := &view.DiagnosticsError{Files: map[string]*hcl.File{}}
	for _, root := range paths {
		info, err := os.Stat(root)
		if err != nil {
			return fmt.Errorf("fmt: %w", err)
		}
		if !info.IsDir() && (!lang.Formattable(root) || !info.Mode().IsRegular()) {
			return &view.Hint{Err: fmt.Errorf("fmt: %s is no file of a definition", root), Hint: "They are called *.cluster.hcl, *.vars.hcl and *.scenario.hcl."}
		}
		err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && name != root && strings.HasPrefix(d.Name(), "."):
				return fs.SkipDir
			case d.IsDir() || !lang.Formattable(name):
				return nil
			}
			return formatFile(name, write, bad, changed)
		})
		if err != nil {
			return fmt.Errorf("fmt: %w", err)
		}
	}
	if bad.Diags.HasErrors() {
		return bad
	}
	return nil
}

func formatFile(name string, write bool, bad *view.DiagnosticsError, changed func(Formatted) error) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // to read a pipe takes until somebody writes to it
		return nil
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	out, diags := lang.Format(src, name)
	if diags.HasErrors() {
		bad.Diags = append(bad.Diags, diags...)
		bad.Files[name] = &hcl.File{Bytes: src}
		return nil
	}
	if bytes.Equal(src, out) {
		return nil
	}
	if write {
		if err := atomicfile.Write(name, out, info.Mode().Perm()); err != nil {
			return errors.Join(errors.New("left as it was"), err)
		}
	}
	return changed(Formatted{name, src, out})
}
