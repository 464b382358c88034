package spec

import (
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Two resources of a group keep no file together: each restore removes what its
// own checkpoint doesn't have.
func TestCheckpointsOfAGroupAreApart(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b []string
		want int
	}{
		{"neighbours", []string{"/srv/app/a", "x"}, []string{"/srv/app/ab", "y"}, 0},
		{"the same", []string{"/srv/app"}, []string{"/srv/app"}, 1},
		{"one below the other", []string{"/srv/app"}, []string{"/srv/app/sub/file"}, 1},
		{"and the other way, in the node's directory", []string{"files/one"}, []string{"files", "more"}, 1},
	} {
		g := Group{Name: "g", Addr: addr.Group("g", addr.NoKey), Resources: []Resource{
			{Name: "a", Type: "generic_application", Checkpoint: &Checkpoint{Paths: tt.a}},
			{Name: "b", Type: "generic_application", Checkpoint: &Checkpoint{Paths: tt.b}},
		}}
		n := 0
		for _, p := range Check(&Definition{Groups: []Group{g}}) {
			if p.Summary == "Files of two resources" {
				if n++; !strings.Contains(p.Detail, "resource a") {
					t.Errorf("%s: %s", tt.name, p.Detail)
				}
			}
		}
		if n != tt.want {
			t.Errorf("%s: %d problems, want %d", tt.name, n, tt.want)
		}
	}
}
