package lang

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
)

var update = flag.Bool("update", false, "write the golden files")

// Each file of testdata/diagnostics has exactly the diagnostics of its golden
// file: what, where, what to do, all of them at once.
func TestDiagnostics(t *testing.T) {
	files, err := filepath.Glob("testdata/diagnostics/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hcl")
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, diags := load(t, map[string]string{"main.cluster.hcl": string(src)})
			_, more := c.Evaluate(nil)
			got := render(append(diags, more...))
			if got == "" {
				t.Error("no diagnostics")
			}
			golden := strings.TrimSuffix(file, ".hcl") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			for _, d := range append(diags, more...) {
				if strings.HasSuffix(d.Summary, ".") || !strings.HasSuffix(d.Detail, ".") && !strings.HasSuffix(d.Detail, "?") && !strings.Contains(d.Detail, "\n") {
					t.Errorf("a summary has no full stop and a detail is full sentences: %s", d)
				}
			}
		})
	}
}

// render writes diagnostics one below the other.
func render(diags hcl.Diagnostics) string {
	var b strings.Builder
	for _, d := range diags {
		severity := "error"
		if d.Severity == hcl.DiagWarning {
			severity = "warning"
		}
		where := ""
		if d.Subject != nil {
			where = " " + d.Subject.String()
		}
		fmt.Fprintf(&b, "%s%s: %s\n", severity, where, d.Summary)
		for _, line := range strings.Split(d.Detail, "\n") {
			fmt.Fprintf(&b, "  %s\n", strings.TrimRight(line, " "))
		}
	}
	return b.String()
}
