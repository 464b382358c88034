package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/statefile"
)

func TestExitCode(t *testing.T) {
	other := errors.New("other")
	locked := &view.Hint{Err: &statefile.LockedError{}, Hint: "wait"}
	for _, c := range []struct {
		err         error
		interrupted bool
		want        int
	}{
		{nil, false, 0},
		{nil, true, 0}, // it came to its end all the same
		{other, false, 1},
		{status(exitChanges), false, 2},
		{passed(77), false, 77},
		{status(exitGuarantee), false, 3},
		{locked, false, 4},
		{fmt.Errorf("plan: %w", locked), false, 4},
		{fmt.Errorf("plan: %w", run.ErrQuorum), false, 6},
		{run.ErrInterrupted, true, 130},
		{fmt.Errorf("read: %w", context.Canceled), true, 130},
		{context.Canceled, false, 1},
		// The first of 1, 130, 4, 5, 6, 3, 2 wins.
		{errors.Join(run.ErrInterrupted, locked), true, 130},
		{errors.Join(run.ErrInterrupted, fmt.Errorf("read: %w", context.Canceled)), true, 130},
		{errors.Join(run.ErrInterrupted, other), true, 1},
		{fmt.Errorf("%w: %w", other, context.Canceled), true, 130},
		{errors.Join(other, status(exitChanges)), false, 1},
		{errors.Join(run.ErrQuorum, locked), false, 4},
		{errors.Join(status(exitChanges), run.ErrQuorum), false, 6},
		{fmt.Errorf("apply: %w", &view.Hint{Err: run.ErrStale, Hint: "plan again"}), false, 5},
		{errors.Join(run.ErrQuorum, run.ErrStale), false, 5},
		{errors.Join(run.ErrStale, locked), false, 4},
		{errors.Join(status(exitGuarantee), run.ErrQuorum), false, 6},
		{errors.Join(status(exitChanges), status(exitGuarantee)), false, 3},
		{errors.Join(run.ErrStale, other), false, 1},
		{errors.Join(run.ErrGuarantee, run.ErrQuorum), false, 6},
		{errors.Join(status(exitChanges), run.ErrGuarantee), false, 3},
	} {
		if got := exitCode(c.err, c.interrupted); got != c.want {
			t.Errorf("%v (interrupted %v): %d, want %d", c.err, c.interrupted, got, c.want)
		}
	}
}

// Every command with --json has a schema that its documents are held to.
func TestJSONHasSchemas(t *testing.T) {
	known := maps.Clone(jsonschematest.Commands)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "clusterplan ")
		if c.Flags().Lookup("json") != nil && known[name] == nil {
			t.Errorf("%s --json has no schema in internal/jsonschematest and docs/schemas", name)
		}
		delete(known, name)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).root())
	if len(known) > 0 {
		t.Errorf("there are no commands %v", slices.Sorted(maps.Keys(known)))
	}
	for _, names := range jsonschematest.Commands {
		for _, name := range names {
			if name != jsonschematest.Any && !slices.Contains(jsonschematest.Names(), name) {
				t.Errorf("there is no docs/schemas/%s.schema.json", name)
			}
		}
	}
}

func TestTwoDashes(t *testing.T) {
	root := (&app{}).root()
	for _, c := range []struct{ in, want string }{
		{"plan -out=x -json DIR", "plan --out=x --json DIR"},
		{"plan -outt=x -json DIR", "plan -outt=x --json DIR"}, // there is no --outt: told as it was written
		{"plan -var=a=b -var-file f", "plan --var=a=b --var-file f"},
		{"-chdir=x events -f", "--chdir=x events -f"},
		{"apply -auto-approve -- -json", "apply --auto-approve -- -json"},
		{"fmt -", "fmt -"},
		{"plan -h", "plan -h"},
		{"demo web -listen 127.0.0.1:1", "demo web --listen 127.0.0.1:1"},
	} {
		if got := strings.Join(twoDashes(root, strings.Fields(c.in)), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.in, got, c.want)
		}
	}
}
