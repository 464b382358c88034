package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A measured process is this program once more.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "--measure" {
		if err := child(context.Background(), os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Everything that is measured does its work (judge), in each shape; the figures
// of so few objects say nothing.
func TestSmoke(t *testing.T) {
	program := filepath.Join(t.TempDir(), "clusterplan")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/clusterplan/clusterplan/cmd/clusterplan").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range shapes {
		for _, perGroup := range []int{5, 1} {
			t.Run(fmt.Sprintf("%s-%d", name, perGroup), func(t *testing.T) {
				s, err := newSite(program, shape{name: name, perGroup: perGroup}, 100+bare)
				if err != nil {
					t.Fatal(err)
				}
				defer s.close()
				ctx := t.Context()
				run := func(what string) {
					t.Helper()
					if err := s.run(ctx, what); err != nil {
						t.Fatal(err)
					}
					if c := s.cost(what); c.CPU <= 0 || c.RSS <= 0 || c.Wall <= 0 {
						t.Errorf("%s took %v", what, c)
					}
				}
				run(first)
				run(validate)
				if err := s.apply(ctx); err != nil {
					t.Fatal(err)
				}
				run(show)
				if err := s.settled(); err != nil {
					t.Fatal(err)
				}
				run(noop)
				if err := s.change(true); err != nil {
					t.Fatal(err)
				}
				run(changed)
			})
		}
	}
}

// A measurement that did not do its work is refused.
func TestJudge(t *testing.T) {
	s := &site{shape: shape{name: shapeFlat, perGroup: 5}, objects: 104}
	for what, outs := range map[string][2]string{
		first:    {"\nPlan: 104 to add, 0 to change, 0 to destroy.\n", "Plan: 103 to add, 0 to change, 0 to destroy.\n"},
		noop:     {`{"objects":104,"changes":0}`, `{"objects":104,"changes":1}`},
		changed:  {`{"objects":104,"changes":1}`, `{"objects":104,"changes":20}`},
		applying: {`{"objects":104,"changes":100}`, `{"objects":99,"changes":95}`},
	} {
		if err := s.judge(what, []byte(outs[0])); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if s.judge(what, []byte(outs[1])) == nil {
			t.Errorf("%s: %s is taken", what, outs[1])
		}
	}
	text, err := json.Marshal(newPair(cost{CPU: 2, RSS: 50}, cost{CPU: 60, RSS: 200}))
	if want := `{"clusterplan":{"cpu_s":2,"rss_mib":50,"wall_s":0},"terraform":{"cpu_s":60,"rss_mib":200,"wall_s":0},"cpu_ratio":30,"rss_ratio":4}`; err != nil || string(text) != want {
		t.Errorf("%s %v, want %s", text, err, want)
	}
}
