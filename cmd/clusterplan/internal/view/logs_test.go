package view

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// However the log comes in pieces, its lines are the same.
func TestLogLines(t *testing.T) {
	const log = "one\n\nthree \xff\x1b[2J<&>\n"
	long := strings.Repeat("x", longestLogLine)
	whole := log + long + "yy\n" + "no end"
	want := []string{"one", "", "three \ufffd\x1b[2J<&>", long, "yy", "no end"}
	for _, piece := range []int{1, 7, 4096, len(whole)} {
		var out bytes.Buffer
		l := NewLogLines(&out, addr.Group("web", addr.NoKey).WithResource("server", addr.NoKey), "n1")
		for chunk := range slices.Chunk([]byte(whole), piece) {
			if n, err := l.Write(chunk); n != len(chunk) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := jsonschematest.Output([]string{"logs", "--json"}, out.Bytes()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			var one logLineJSON
			if err := json.Unmarshal([]byte(line), &one); err != nil || one.Node != "n1" || one.Address.String() != "group.web.resource.server" {
				t.Fatalf("%.100s: %v", line, err)
			}
			got = append(got, one.Text)
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pieces of %d bytes: %.300q", piece, got)
		}
	}
}
