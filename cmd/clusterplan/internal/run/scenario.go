package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sort"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/scenario"
)

// Scenarios carries out the scenarios in files and in directories' files, on the
// definition's simulated cluster. Nothing is asked of the running one. All that is
// wrong with the definition and the files is told before anything is run. The
// diagnostics are warnings.
func (s *Session) Scenarios(ctx context.Context, paths []string) (*scenario.Results, hcl.Diagnostics, error) {
	if err := s.ReadState(ctx); err != nil {
		return nil, nil, err
	}
	if _, err := s.rename(planner.ModeNormal); err != nil {
		return nil, nil, err
	}
	names, err := scenarioFiles(paths)
	if err != nil {
		return nil, nil, err
	}
	def, diags := s.Config.Evaluate(s.known())
	diags = append(s.Diags, diags...)
	files := maps.Clone(s.Config.Files())
	if diags.HasErrors() {
		return nil, nil, &view.DiagnosticsError{Diags: diags, Files: files}
	}
	var all []scenario.Scenario
	for _, name := range names {
		src, err := readScenario(name)
		if err != nil {
			return nil, diags, err
		}
		list, f, more := scenario.Parse(src, name, def)
		if f == nil {
			f = &hcl.File{Bytes: src}
		}
		files[name] = f
		all, diags = append(all, list...), append(diags, more...)
	}
	if diags.HasErrors() {
		return nil, nil, &view.DiagnosticsError{Diags: diags, Files: files}
	}
	var list []scenario.Result
	for i := range all {
		r, err := scenario.Run(ctx, def.Spec(), &all[i])
		if ctx.Err() != nil {
			return nil, diags, ErrInterrupted
		}
		if err != nil {
			return nil, diags, err
		}
		list = append(list, r)
	}
	out := scenario.NewResults(def.Spec().Cluster.Name, list)
	out.Diagnostics = view.JSONDiagnostics(diags, files)
	return out, diags, nil
}

// scenarioFiles are the files themselves, and those in directories, in the order
// of their names; each once.
func scenarioFiles(paths []string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	add := func(name string) {
		if name = filepath.Clean(name); !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, p := range paths {
		fi, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, &view.Hint{Err: fmt.Errorf("there is no scenario file %s", p), Hint: "Name a file, or a directory with files whose names end in " + scenario.Suffix + "."}
		case err != nil:
			return nil, fmt.Errorf("open scenario: %w", err)
		case !fi.IsDir():
			add(p)
			continue
		}
		entries, err := os.ReadDir(p)
		if err != nil {
			return nil, fmt.Errorf("open scenarios: %w", err)
		}
		var names []string
		for _, e := range entries {
			ok, _ := filepath.Match("*"+scenario.Suffix, e.Name())
			if !ok || e.IsDir() {
				continue
			}
			file := filepath.Join(p, e.Name())
			if fi, err := os.Stat(file); err == nil && !fi.Mode().IsRegular() { // to open a pipe takes until somebody writes to it
				return nil, &view.Hint{Err: fmt.Errorf("%s is a pipe, a socket, a device or a directory, and no scenario file", file), Hint: "Put a file there, or name it otherwise. A scenario file that is named itself may be a pipe."}
			}
			names = append(names, e.Name())
		}
		if len(names) == 0 {
			return nil, &view.Hint{Err: fmt.Errorf("directory %s has no scenario file", p), Hint: "Names of scenario files end in " + scenario.Suffix + "."}
		}
		sort.Strings(names)
		for _, n := range names {
			add(filepath.Join(p, n))
		}
	}
	return out, nil
}

// readScenario reads one byte more than a file may have, and no more.
func readScenario(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open scenario: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, scenario.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", name, err)
	}
	return src, nil
}
