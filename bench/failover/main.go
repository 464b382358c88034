// Failover measures how long a service is away when its node or its process
// dies: a copy of the quickstart is brought up, and the group web's URL is asked
// every 10 ms, each time over a fresh connection.
//
//	go run ./bench/failover --runs 20 --json
//
// node_killed: the owner's agent and monitor are killed with -9; the time is
// from just before the first kill to the first HTTP answer of another node. Then
// the definition is applied again and the cluster settles. process_killed: the
// resource's process is killed with -9; the time is to the first answer to a
// request that was sent after it, from whichever node. Its restart threshold is
// raised in the copy, so that every run is a restart.
//
// overlap_max_ms is the longest time, over a run, in which serving processes of
// two nodes lived at once, as /proc shows it every 10 ms.
//
// With --lab netns the nodes are in network namespaces (root), the service has
// an address that moves, and a client in a namespace of its own probes it every
// 10 ms by ICMP echo and HTTP:
//
//	go run ./bench/failover --lab netns --nodes 3 --scenario crash --runs 50 --json
//
// Scenarios: crash (SIGKILL for everything on the owner, a follower),
// crash-leader, partition (the owner's link is cut; by turns it is a follower
// and the leader), oneway (by turns what it sends is cut, and what it gets),
// pause (SIGSTOP for everything on it for 2 s), move (an operator's), process
// (the resource's is killed). One of oneway's four cases differs: a leader that
// still speaks and hears nobody gives up after 0.25 to 0.3 s, and only then the
// wait for its lease begins, so that it takes that much longer. -v tells each
// run's case.
//
// median_ms, p99_ms and max_ms are from the fault to the first ICMP answer of another node, told by its MAC; of move, HTTP's
// silence; of process, to the first HTTP answer. http is from the fault to the
// first HTTP answer of another node, silence and http_silence the longest time
// between two answers of any node; each HTTP probe is a connection of its own, and
// none waits for another, so that one whose first packet found nobody (its kernel
// tries again after 1 s) hides no later answer. own_ms of move is what the program
// takes by itself to end and to start, and the time for which the address listens
// for another owner (measured at the end, on the machine as busy as it is);
// over_own is HTTP's silence less that: all that the cluster adds. overlap_max_ms
// is the longest time in which two nodes held the address, by the kernel's
// address messages from every node's namespace. stall_max_ms is the longest time
// for which the machine as a whole stood still, as a thread before all others saw
// it: what a hypervisor takes away. After each run all is mended.
//
// The scenario steady has no fault: for --minutes, --loss percent of all frames
// are lost and a process a processor does other work; it prints how many groups
// failed over (failovers) and how often a node was taken for lost (node_downs),
// which is to be never.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/bench/internal/lab"
)

const (
	every     = 10 * time.Millisecond
	answerIn  = 2 * time.Second
	waitLimit = 30 * time.Second
	afterward = 300 * time.Millisecond // the watch for an overlap goes on after the answer
)

// result is one scenario's, in milliseconds.
type result struct {
	Runs    int     `json:"runs"`
	Median  float64 `json:"median_ms"`
	Max     float64 `json:"max_ms"`
	Overlap float64 `json:"overlap_max_ms"`
}

func (r *result) fill(times, overlaps []time.Duration) {
	slices.Sort(times)
	r.Runs = len(times)
	n := len(times)
	r.Median = ms((times[(n-1)/2] + times[n/2]) / 2)
	r.Max = ms(times[n-1])
	r.Overlap = ms(slices.Max(overlaps))
}

func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

func main() {
	runs := flag.Int("runs", 20, "runs of each scenario")
	asJSON := flag.Bool("json", false, "print one JSON object")
	address := flag.String("address", "", "where the copy's group web answers (default: a free address in 127/8)")
	kind := flag.String("lab", "process", "process: nodes share this machine's loopback network; netns: each has a network namespace (root)")
	nodes := flag.Int("nodes", 3, "netns: nodes")
	voters := flag.Int("voters", 0, "netns: nodes that vote (default: all, at most 5)")
	scenario := flag.String("scenario", crash, "netns: "+strings.Join(scenarios, ", "))
	minutes := flag.Float64("minutes", 30, "netns, steady: how long")
	loss := flag.Float64("loss", 5, "netns, steady: percent of all frames that are lost")
	verbose := flag.Bool("v", false, "show each run and what the commands print, on stderr")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch *kind {
	case "process":
		err = run(ctx, max(1, *runs), *asJSON, *address, *verbose)
	case "netns":
		log := io.Discard
		if *verbose {
			log = os.Stderr
		}
		err = runNetns(ctx, netnsConfig{scenario: *scenario, nodes: *nodes, voters: *voters, runs: max(1, *runs), minutes: *minutes, loss: *loss, asJSON: *asJSON, log: log})
	default:
		err = fmt.Errorf("there is no lab %q; there are process and netns", *kind)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

type bench struct {
	*lab.Cluster
	log io.Writer
}

func run(ctx context.Context, runs int, asJSON bool, address string, verbose bool) (err error) {
	log := io.Discard
	if verbose {
		log = os.Stderr
	}
	c, err := lab.Up(ctx, address, log, lab.Edit{
		Old: "    depends_on = [resource.vip]\n",
		New: "    depends_on = [resource.vip]\n\n    restart {\n      threshold = 1000000\n    }\n",
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	b := &bench{Cluster: c, log: log}
	var out struct {
		Node    result `json:"node_killed"`
		Process result `json:"process_killed"`
	}
	if err := b.series(ctx, "node killed", runs, b.killNode, &out.Node); err != nil {
		return err
	}
	if err := b.series(ctx, "process killed", runs, b.killProcess, &out.Process); err != nil {
		return err
	}
	if asJSON {
		data, err := json.Marshal(out)
		if err != nil {
			return err
		}
		fmt.Println(string(data))
		return nil
	}
	fmt.Printf("node killed:    %d runs, answered again after %.0f ms (median), %.0f ms at most; two nodes at once for %.0f ms at most\n",
		out.Node.Runs, out.Node.Median, out.Node.Max, out.Node.Overlap)
	fmt.Printf("process killed: %d runs, answered again after %.0f ms (median), %.0f ms at most; two nodes at once for %.0f ms at most\n",
		out.Process.Runs, out.Process.Median, out.Process.Max, out.Process.Overlap)
	return nil
}

func (b *bench) series(ctx context.Context, name string, runs int, one func(context.Context) (time.Duration, time.Duration, error), r *result) error {
	var times, overlaps []time.Duration
	for i := range runs {
		took, overlap, err := one(ctx)
		if err != nil {
			return fmt.Errorf("%s, run %d: %w", name, i+1, err)
		}
		fmt.Fprintf(b.log, "%s, run %d: %v, overlap %v\n", name, i+1, took, overlap)
		times, overlaps = append(times, took), append(overlaps, overlap)
	}
	r.fill(times, overlaps)
	return nil
}

// killNode kills the owner's agent and monitor, then has all mended.
func (b *bench) killNode(ctx context.Context) (took, overlap time.Duration, err error) {
	s, err := b.Settled(ctx, time.Second)
	if err != nil {
		return 0, 0, err
	}
	owner := lab.Owner(s, "web")
	n, ok := lab.Node(s, owner)
	if !ok || n.PID == 0 || n.MonitorPID == 0 {
		return 0, 0, fmt.Errorf("status does not tell the processes of %q", owner)
	}
	took, overlap, err = b.measure(ctx, func() error {
		return errors.Join(syscall.Kill(n.PID, syscall.SIGKILL), syscall.Kill(n.MonitorPID, syscall.SIGKILL))
	}, func(by string) bool { return by != owner })
	if err != nil {
		return 0, 0, err
	}
	if err := b.Apply(ctx); err != nil {
		return 0, 0, err
	}
	// The failback policy takes the group home after its delay.
	if _, err := b.Settled(ctx, 7*time.Second); err != nil {
		return 0, 0, err
	}
	return took, overlap, nil
}

// killProcess kills the resource's process.
func (b *bench) killProcess(ctx context.Context) (took, overlap time.Duration, err error) {
	s, err := b.Settled(ctx, time.Second)
	if err != nil {
		return 0, 0, err
	}
	var pids []int
	for pid, node := range b.serving() {
		if node == lab.Owner(s, "web") {
			pids = append(pids, pid)
		}
	}
	if len(pids) != 1 {
		return 0, 0, fmt.Errorf("the owner has %d serving processes", len(pids))
	}
	return b.measure(ctx, func() error { return syscall.Kill(pids[0], syscall.SIGKILL) }, func(string) bool { return true })
}

// answer is one HTTP answer: who gave it, to a request sent and answered when.
type answer struct {
	by         string
	sent, came time.Time
}

// measure does the harm and waits for an answer that counts, watching for
// overlaps all the time.
func (b *bench) measure(ctx context.Context, harm func() error, counts func(by string) bool) (took, overlap time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	answers := make(chan answer, 1024)
	go b.ask(ctx, answers)
	watched := make(chan time.Duration, 1)
	stop := make(chan struct{})
	go func() { watched <- b.watch(stop) }()
	select { // the service answers before it is harmed
	case <-answers:
	case <-ctx.Done():
		close(stop)
		return 0, 0, fmt.Errorf("%s does not answer", b.URL)
	}
	began := time.Now()
	if err := harm(); err != nil {
		close(stop)
		return 0, 0, err
	}
	harmed := time.Now()
	for took == 0 {
		select {
		case a := <-answers:
			if a.sent.After(harmed) && counts(a.by) {
				took = a.came.Sub(began)
			}
		case <-ctx.Done():
			close(stop)
			return 0, 0, fmt.Errorf("no answer within %s", waitLimit)
		}
	}
	select {
	case <-time.After(afterward):
	case <-ctx.Done():
	}
	close(stop)
	return took, <-watched, nil
}

// ask sends a request every 10 ms, each over a connection of its own.
func (b *bench) ask(ctx context.Context, answers chan<- answer) {
	hc := &http.Client{Timeout: answerIn, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		go func() {
			a := answer{sent: time.Now()}
			res, err := hc.Get(b.URL)
			if err != nil {
				return
			}
			body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK {
				return
			}
			a.by, a.came = who(string(body)), time.Now()
			select {
			case answers <- a:
			default:
			}
		}()
	}
}

// who is the node that the demo's answer names.
func who(body string) string {
	for _, word := range strings.FieldsFunc(body, func(r rune) bool { return !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z') }) {
		if len(word) == 2 && word[0] == 'n' {
			return word
		}
	}
	return body
}

// serving are the living processes that serve the group web, with their nodes.
func (b *bench) serving() map[int]string {
	found := make(map[int]string)
	for _, pid := range lab.PIDs() {
		args := lab.Args(pid)
		if len(args) < 3 || args[1] != "demo" || args[2] != "web" || !strings.HasPrefix(lab.Env(pid, "CLUSTERPLAN_SOCKET"), b.Dir) {
			continue
		}
		found[pid] = lab.Env(pid, "CLUSTERPLAN_NODE")
	}
	return found
}

// watch adds up the time in which two nodes' serving processes live at once.
func (b *bench) watch(stop <-chan struct{}) (overlap time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, both := time.Now(), false
	for {
		select {
		case <-stop:
			return overlap
		case <-tick.C:
		}
		nodes := make(map[string]bool)
		for _, node := range b.serving() {
			nodes[node] = true
		}
		now := time.Now()
		if both || len(nodes) > 1 {
			overlap += now.Sub(last)
		}
		both, last = len(nodes) > 1, now
	}
}
