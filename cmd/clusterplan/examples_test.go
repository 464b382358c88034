package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/command"
)

// What the examples' scenarios expect is what happens.
func TestExampleScenarios(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*.scenario.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			var out, errs bytes.Buffer
			code := command.Main([]string{"simulate", filepath.Dir(file), "--refresh=false", "--scenario", file}, strings.NewReader(""), &out, &errs)
			if code != 0 || !strings.Contains(out.String(), " 0 failed.") {
				t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
			}
		})
	}
}

// Every example is a definition as it stands.
func TestExamplesAreValid(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*.cluster.*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := command.Main([]string{"validate", filepath.Dir(file)}, strings.NewReader(""), &out, &errs); code != 0 {
				t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
			}
		})
	}
}
