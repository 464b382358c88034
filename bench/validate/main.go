// Validate measures the whole of `clusterplan validate`, as a user waits for it, of
// definitions of many modules, each in a directory of its own with 50 objects.
//
//	go run ./bench/validate --json
//
// builds the program, writes definitions of 50, 100 and 200 modules (--modules), and
// runs it --runs times on each, by turns. It prints for each the objects, the median
// and the shortest of the milliseconds, the median of user and system time, and how
// they grow from the first to the last: the exponent, 1 where twice as many take
// twice as long. What the program needs without any definition (`version`) is
// start_ms.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	list := flag.String("modules", "50,100,200", "how many modules, one after the other")
	runs := flag.Int("runs", 7, "of each")
	asJSON := flag.Bool("json", false, "print one JSON object")
	flag.Parse()
	var modules []int
	for text := range strings.SplitSeq(*list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			fmt.Fprintf(os.Stderr, "validate: --modules: %q is no number from 1 to 1000\n", text)
			os.Exit(2)
		}
		modules = append(modules, n)
	}
	out, err := run(modules, max(1, *runs))
	if err == nil {
		err = tell(out, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "validate:", err)
		os.Exit(1)
	}
}

type result struct {
	Runs     int      `json:"runs"`
	Start    float64  `json:"start_ms"`
	Sizes    []size   `json:"sizes"`
	Exponent *float64 `json:"exponent"`     // of ms; null: of one size there is none
	CPU      *float64 `json:"cpu_exponent"` // of cpu_ms
}

type size struct {
	Modules int     `json:"modules"`
	Objects int     `json:"objects"`
	Median  float64 `json:"ms"`
	Best    float64 `json:"best_ms"`
	CPU     float64 `json:"cpu_ms"`
}

func tell(out *result, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(out)
	}
	for _, s := range out.Sizes {
		fmt.Printf("%d modules, %d objects: median %.0f ms, shortest %.0f ms, %.0f ms of CPU\n", s.Modules, s.Objects, s.Median, s.Best, s.CPU)
	}
	if out.Exponent != nil {
		fmt.Printf("growth: exponent %.2f, of CPU %.2f; the program alone takes %.0f ms\n", *out.Exponent, *out.CPU, out.Start)
	}
	return nil
}

func run(modules []int, runs int) (*result, error) {
	dir, err := os.MkdirTemp("", "clusterplan-bench-validate-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "clusterplan")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "github.com/clusterplan/clusterplan/cmd/clusterplan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as a release is built
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build clusterplan: %w: %s", err, said)
	}
	for _, n := range modules {
		if err := write(filepath.Join(dir, strconv.Itoa(n)), n); err != nil {
			return nil, err
		}
	}
	took, cpu := make([][]float64, len(modules)+1), make([][]float64, len(modules)+1)
	for turn := range runs + 1 {
		for i := range took {
			args, want := []string{"version"}, ""
			if i < len(modules) {
				args, want = []string{"validate", filepath.Join(dir, strconv.Itoa(modules[i]))}, "valid"
			}
			cmd := exec.Command(program, args...)
			begin := time.Now()
			said, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(said), want) {
				return nil, fmt.Errorf("clusterplan %s: %w: %s", strings.Join(args, " "), err, said)
			}
			if turn == 0 {
				continue // the files are in no cache yet
			}
			took[i] = append(took[i], ms(time.Since(begin)))
			cpu[i] = append(cpu[i], ms(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
		}
	}
	out := &result{Runs: runs, Start: median(took[len(modules)])}
	for i, n := range modules {
		out.Sizes = append(out.Sizes, size{Modules: n, Objects: 4 + 50*n, Median: median(took[i]), Best: slices.Min(took[i]), CPU: median(cpu[i])})
	}
	if first, last := out.Sizes[0], out.Sizes[len(modules)-1]; last.Modules != first.Modules {
		grown := func(from, to float64) *float64 {
			e := math.Log(to/from) / math.Log(float64(last.Objects)/float64(first.Objects))
			return &e
		}
		out.Exponent, out.CPU = grown(first.Median, last.Median), grown(first.CPU, last.CPU)
	}
	return out, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// write writes a definition of so many modules: 25 groups of a resource each.
func write(dir string, modules int) error {
	var root, module strings.Builder
	root.WriteString("cluster \"modular\" {\n  quorum {\n    model = \"majority_node_set\"\n  }\n}\n\nnode \"n\" {\n  provider = local\n  for_each = toset([\"a\", \"b\", \"c\"])\n}\n")
	for i := range modules {
		fmt.Fprintf(&root, "\nmodule \"m%04d\" {\n  source = \"./modules/m%04d\"\n  nodes  = values(node.n)\n  first  = %d\n}\n", i, i, 10000+25*i)
	}
	module.WriteString("variable \"nodes\" {\n  type = list(node)\n}\n\nvariable \"first\" {\n  type = number\n}\n")
	for i := range 25 {
		fmt.Fprintf(&module, "\ngroup \"g%02d\" {\n  preferred_owners = var.nodes\n\n  resource \"generic_application\" \"server\" {\n"+
			"    command = [\"serve\", \"--port\", tostring(var.first + %d), \"${path.module}\"]\n  }\n}\n\noutput \"g%02d\" {\n  value = group.g%02d\n}\n", i, i, i, i)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(root.String()), 0o644); err != nil {
		return err
	}
	for i := range modules {
		in := filepath.Join(dir, "modules", fmt.Sprintf("m%04d", i))
		if err := os.MkdirAll(in, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(in, "main.cluster.hcl"), []byte(module.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
