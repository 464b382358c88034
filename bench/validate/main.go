// Validate measures the whole of `clusterplan validate`, as a user waits for it, of
// definitions of many modules, each in a directory of its own with 50 objects.
//
//	go run ./bench/validate --json
//
// builds the program, writes definitions of 50, 100 and 200 modules (--modules), and
// runs it --runs times on each, by turns. It prints for each the objects, the median
// and the shortest of the milliseconds, the median of user and system time, the most
// that was resident, and how it grew from the one before: the exponent, 1 where
// twice as many take twice as long; then the same from the first to the last.
// What a definition of the cluster and its nodes alone takes is fixed_ms and
// fixed_cpu_ms, and is taken off first, for it would make any growth look flatter.
// With --uncollected each is run with GOGC=off too, which tells what the garbage
// collector has of the growth from what the program has: uncollected_cpu_ms.
// Exponents of CPU time tell more than those on the wall where others work too.
package main

import (
	"cmp"
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
	"syscall"
	"time"
)

func main() {
	list := flag.String("modules", "50,100,200", "how many modules, one after the other")
	runs := flag.Int("runs", 7, "of each")
	uncollected := flag.Bool("uncollected", false, "without the garbage collector too")
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
	out, err := run(modules, max(1, *runs), *uncollected)
	if err == nil {
		err = tell(out, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "validate:", err)
		os.Exit(1)
	}
}

type result struct {
	Runs     int     `json:"runs"`
	Fixed    float64 `json:"fixed_ms"`
	FixedCPU float64 `json:"fixed_cpu_ms"`
	Sizes    []size  `json:"sizes"`
	growth           // from the first to the last
}

type size struct {
	Modules     int     `json:"modules"`
	Objects     int     `json:"objects"`
	Median      float64 `json:"ms"`
	Best        float64 `json:"best_ms"`
	CPU         float64 `json:"cpu_ms"`
	Uncollected float64 `json:"uncollected_cpu_ms,omitempty"`
	RSS         float64 `json:"rss_mib"`
	growth              // from the one before
}

// growth is exponents; null: there is nothing to compare with.
type growth struct {
	Wall        *float64 `json:"exponent"`
	CPU         *float64 `json:"cpu_exponent"`
	Uncollected *float64 `json:"uncollected_cpu_exponent,omitempty"`
}

func (g growth) String() string {
	if g.CPU == nil {
		return ""
	}
	text := fmt.Sprintf("; growth: exponent %.2f, of CPU %.2f", *g.Wall, *g.CPU)
	if g.Uncollected != nil {
		text += fmt.Sprintf(", uncollected %.2f", *g.Uncollected)
	}
	return text
}

func tell(out *result, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(out)
	}
	for _, s := range out.Sizes {
		fmt.Printf("%d modules, %d objects: median %.0f ms, shortest %.0f ms, %.0f ms of CPU", s.Modules, s.Objects, s.Median, s.Best, s.CPU)
		if s.Uncollected > 0 {
			fmt.Printf(" (%.0f uncollected)", s.Uncollected)
		}
		fmt.Printf(", %.0f MiB%s\n", s.RSS, s.growth)
	}
	fmt.Printf("without modules: %.0f ms, %.0f ms of CPU%s\n", out.Fixed, out.FixedCPU, out.growth)
	return nil
}

// taken is what one run took.
type taken struct{ wall, cpu, rss float64 }

func run(modules []int, runs int, uncollected bool) (*result, error) {
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
	all := append([]int{0}, modules...)
	for _, n := range all {
		if err := write(filepath.Join(dir, strconv.Itoa(n)), n); err != nil {
			return nil, err
		}
	}
	took, without := make([][]taken, len(all)), make([][]taken, len(all))
	for turn := range runs + 1 {
		for i, n := range all {
			one, err := once(program, filepath.Join(dir, strconv.Itoa(n)), os.Environ())
			if err != nil {
				return nil, err
			}
			var other taken
			if uncollected {
				if other, err = once(program, filepath.Join(dir, strconv.Itoa(n)), append(os.Environ(), "GOGC=off")); err != nil {
					return nil, err
				}
			}
			if turn > 0 { // before, the files are in no cache yet
				took[i], without[i] = append(took[i], one), append(without[i], other)
			}
		}
	}
	return summary(modules, took, without), nil
}

func once(program, dir string, env []string) (taken, error) {
	cmd := exec.Command(program, "validate", dir)
	cmd.Env = env
	begin := time.Now()
	said, err := cmd.CombinedOutput()
	wall := time.Since(begin)
	if err != nil || !strings.Contains(string(said), "valid") {
		return taken{}, fmt.Errorf("clusterplan validate %s: %w: %s", dir, err, said)
	}
	out := taken{wall: ms(wall), cpu: ms(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())}
	if used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		out.rss = float64(used.Maxrss) / 1024
	}
	return out, nil
}

// summary is of what was taken without modules first, and then by each size.
func summary(modules []int, took, without [][]taken) *result {
	wall := func(t taken) float64 { return t.wall }
	cpu := func(t taken) float64 { return t.cpu }
	rss := func(t taken) float64 { return t.rss }
	out := &result{Runs: len(took[0]), Fixed: median(took[0], wall), FixedCPU: median(took[0], cpu)}
	bare := median(without[0], cpu)
	grown := func(from, to size) growth {
		exponent := func(before, after, fixed float64) *float64 {
			if from.Modules == to.Modules || before <= fixed || after <= fixed {
				return nil
			}
			e := math.Log((after-fixed)/(before-fixed)) / math.Log(float64(to.Modules)/float64(from.Modules))
			return &e
		}
		return growth{exponent(from.Median, to.Median, out.Fixed), exponent(from.CPU, to.CPU, out.FixedCPU), exponent(from.Uncollected, to.Uncollected, bare)}
	}
	for i, n := range modules {
		s := size{Modules: n, Objects: 4 + 50*n, Median: median(took[i+1], wall), Best: slices.MinFunc(took[i+1], func(a, b taken) int { return cmp.Compare(a.wall, b.wall) }).wall,
			CPU: median(took[i+1], cpu), Uncollected: median(without[i+1], cpu), RSS: median(took[i+1], rss)}
		if i > 0 {
			s.growth = grown(out.Sizes[i-1], s)
		}
		out.Sizes = append(out.Sizes, s)
	}
	out.growth = grown(out.Sizes[0], out.Sizes[len(modules)-1])
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(list []taken, of func(taken) float64) float64 {
	all := make([]float64, len(list))
	for i, t := range list {
		all[i] = of(t)
	}
	slices.Sort(all)
	return all[len(all)/2]
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
