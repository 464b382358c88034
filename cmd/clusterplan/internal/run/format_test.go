package run

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pipe is not read, whatever its name: the other files are laid out.
func TestFormatBesideAPipe(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "main.cluster.hcl"), filepath.Join(dir, "a.cluster.hcl")
	if err := errors.Join(os.WriteFile(file, []byte("cluster   \"c\" {}\n"), 0o600), syscall.Mkfifo(pipe, 0o600), os.Symlink(pipe, filepath.Join(dir, "b.vars.hcl"))); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	var changed []string
	go func() {
		done <- errors.Join(
			Format([]string{dir}, true, func(f Formatted) error { changed = append(changed, f.Name); return nil }),
			Format([]string{pipe}, true, nil))
	}()
	select {
	case err := <-done:
		if len(changed) != 1 || changed[0] != file || err == nil || !strings.Contains(err.Error(), "a.cluster.hcl is no file of a definition") {
			t.Errorf("%v, changed %q", err, changed)
		}
	case <-time.After(30 * time.Second):
		t.Error("the pipe is read")
	}
}

// Nor is one of a directory of scenarios.
func TestScenariosBesideAPipe(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "a.scenario.hcl"), filepath.Join(dir, "b.scenario.hcl")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600), os.Symlink("pipe", link)); err != nil {
		t.Fatal(err)
	}
	if _, err := scenarioFiles([]string{dir}); err == nil || !strings.Contains(err.Error(), link+" is a pipe") {
		t.Errorf("%v", err)
	}
	if names, err := scenarioFiles([]string{file, link}); err != nil || len(names) != 2 {
		t.Errorf("named themselves: %q, %v", names, err)
	}
}
