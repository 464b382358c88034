// Ssh measures applies over SSH: as many hosts as are asked for, each with
// OpenSSH's server in a network namespace of this machine (root), a cluster of a
// node on each, applied by the program from the network of a client beside them.
//
//	go run ./bench/ssh --hosts 50 --json
//
// prints first_ms (apply to hosts that have nothing: upload of the program, keys,
// start of the agents, all in the cluster), plan_ms (nothing to do), second_ms
// (apply with nothing to do, median of --runs), destroy_ms, and of the second
// apply cpu_ms, the processor time of clusterplan alone. Five nodes vote. With
// --vs ansible (Debian: ansible-core), ansible_first_ms and ansible_second_ms are its times for
// the same copies (program, five small files) and the start of a process on each
// host, with as many forks as there are hosts.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/internal/sshlab"
)

type result struct {
	Hosts         int     `json:"hosts"`
	First         int64   `json:"first_ms"`
	Plan          int64   `json:"plan_ms"`
	Second        int64   `json:"second_ms"`
	SecondCPU     int64   `json:"cpu_ms"`
	Destroy       int64   `json:"destroy_ms"`
	AnsibleFirst  int64   `json:"ansible_first_ms,omitempty"`
	AnsibleSecond int64   `json:"ansible_second_ms,omitempty"`
	Times         float64 `json:"ansible_times,omitempty"` // of both together
}

func main() {
	hosts := flag.Int("hosts", 50, "how many, 3 to 200")
	runs := flag.Int("runs", 3, "applies with nothing to do")
	vs := flag.String("vs", "", "ansible: its times beside")
	asJSON := flag.Bool("json", false, "print one JSON object")
	verbose := flag.Bool("v", false, "show what the commands print, on stderr")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := run(ctx, *hosts, *runs, *vs, *verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ssh:", err)
		os.Exit(1)
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(r)
	} else {
		fmt.Printf("%d hosts: first apply %d ms, plan %d ms, apply with nothing to do %d ms (%d ms of CPU), destroy %d ms\n", r.Hosts, r.First, r.Plan, r.Second, r.SecondCPU, r.Destroy)
		if r.Times > 0 {
			fmt.Printf("Ansible: first %d ms, second %d ms: %.1f times as long\n", r.AnsibleFirst, r.AnsibleSecond, r.Times)
		}
	}
	if err != nil {
		os.Exit(1)
	}
}

// site is the hosts and the definition.
type site struct {
	dir       string
	program   string
	lab       *sshlab.Lab
	network   *netlab.Lab
	names     []string
	namespace string
	verbose   bool
}

func run(ctx context.Context, hosts, runs int, vs string, verbose bool) (r result, err error) {
	if hosts < 3 || hosts > 200 || runs < 1 {
		return r, errors.New("--hosts is 3 to 200, --runs at least 1")
	}
	if err := sshlab.Allowed(); err != nil {
		return r, err
	}
	if vs != "" && vs != "ansible" {
		return r, fmt.Errorf("--vs %s: there is only ansible", vs)
	}
	tree, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return r, fmt.Errorf("find the module (run this in its tree): %w", err)
	}
	dir, err := os.MkdirTemp("", "clusterplan-bench-")
	if err != nil {
		return r, err
	}
	s := &site{dir: dir, program: filepath.Join(dir, "clusterplan"), network: netlab.At(dir), verbose: verbose}
	defer func() { err = errors.Join(err, s.close()) }()
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", s.program, "./cmd/clusterplan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // one static file, as nodes get it
	build.Dir, build.Stderr = strings.TrimSpace(string(tree)), os.Stderr
	if err := build.Run(); err != nil {
		return r, fmt.Errorf("build clusterplan: %w", err)
	}
	if err := s.up(hosts); err != nil {
		return r, err
	}
	r.Hosts = hosts
	parallel := "--parallelism=" + strconv.Itoa(hosts)
	if r.First, _, err = s.clusterplan(ctx, "apply", "--auto-approve", parallel); err != nil {
		return r, err
	}
	if r.Plan, _, err = s.clusterplan(ctx, "plan", "--detailed-exitcode", parallel); err != nil {
		return r, err
	}
	var times, cpu []int64
	for range runs {
		t, c, err := s.clusterplan(ctx, "apply", "--auto-approve", parallel)
		if err != nil {
			return r, err
		}
		times, cpu = append(times, t), append(cpu, c)
	}
	slices.Sort(times)
	slices.Sort(cpu)
	r.Second, r.SecondCPU = times[len(times)/2], cpu[len(cpu)/2]
	if r.Destroy, _, err = s.clusterplan(ctx, "destroy", "--auto-approve", parallel); err != nil {
		return r, err
	}
	if vs == "" {
		return r, nil
	}
	if r.AnsibleFirst, err = s.ansible(ctx); err != nil {
		return r, err
	}
	if r.AnsibleSecond, err = s.ansible(ctx); err != nil {
		return r, err
	}
	r.Times = float64((r.AnsibleFirst+r.AnsibleSecond)*10/(r.First+r.Second)) / 10
	return r, nil
}

// up starts the hosts and writes the definition.
func (s *site) up(hosts int) error {
	lab, err := sshlab.New(filepath.Join(s.dir, "hosts"))
	if err != nil {
		return err
	}
	s.lab = lab
	var nodes, inventory strings.Builder
	for i := range hosts {
		name := fmt.Sprintf("n%d", i+1)
		seat, err := s.network.Assign(name, netlab.Networks{netip.MustParsePrefix("10.77.0.0/24")}, netip.Addr{}, i)
		s.names = append(s.names, name)
		if err == nil {
			err = s.network.Wire(name)
		}
		if err == nil {
			_, err = lab.Add(name, seat.Namespace, seat.Address().String(), 22)
		}
		if err != nil {
			return err
		}
		votes := 0
		if i < 5 {
			votes = 1
		}
		fmt.Fprintf(&nodes, "node %q {\n  provider = ssh\n  address  = %q\n  votes    = %d\n}\n\n", name, seat.Address(), votes)
		fmt.Fprintln(&inventory, seat.Address())
	}
	r, err := s.network.Record()
	if err != nil {
		return err
	}
	s.namespace = r.Seats[netlab.Client].Namespace
	text := fmt.Sprintf("provider \"ssh\" {\n  user             = \"root\"\n  private_key_file = %q\n  known_hosts_file = %q\n  ssh_config_file  = \"none\"\n}\n\ncluster \"bench\" {\n  quorum {\n    model = \"majority_node_set\"\n  }\n}\n\n%s",
		lab.KeyFile(), lab.KnownHosts(), nodes.String())
	return errors.Join(os.MkdirAll(filepath.Join(s.dir, "definition"), 0o755),
		os.WriteFile(filepath.Join(s.dir, "definition", "main.cluster.hcl"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(s.dir, "inventory"), []byte(inventory.String()), 0o644))
}

func (s *site) close() error {
	var err error
	if s.lab != nil {
		err = s.lab.Close()
	}
	if s.namespace != "" {
		_, killed := netlab.Kill(s.namespace) // Ansible's connections outlive it
		err = errors.Join(err, killed)
	}
	for _, name := range s.names {
		err = errors.Join(err, s.network.Unwire(name))
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// timed runs a command in the client's network: its time and that of its processor, in ms.
func (s *site) timed(ctx context.Context, name string, args ...string) (ms, cpu int64, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Join(s.dir, "definition")
	log, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		return 0, 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log // a file: what Ansible leaves running must not keep a pipe
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "HOME="+s.dir, "ANSIBLE_HOST_KEY_CHECKING=True",
		"ANSIBLE_SSH_ARGS=-F none -o UserKnownHostsFile="+s.lab.KnownHosts()+" -o ControlMaster=auto -o ControlPersist=60s")
	began := time.Now()
	if err := netlab.Start(s.namespace, cmd); err != nil {
		return 0, 0, err
	}
	err = cmd.Wait()
	ms = time.Since(began).Milliseconds()
	out, _ := os.ReadFile(log.Name())
	if s.verbose {
		os.Stderr.Write(out)
		fmt.Fprintf(os.Stderr, "%s %s: %d ms\n", filepath.Base(name), strings.Join(args, " "), ms)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, out[max(0, len(out)-3000):])
	}
	return ms, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Milliseconds(), nil
}

func (s *site) clusterplan(ctx context.Context, args ...string) (ms, cpu int64, err error) {
	return s.timed(ctx, s.program, args...)
}

// playbook does the same copies and a start.
const playbook = `- hosts: all
  gather_facts: false
  tasks:
    - file: {path: /var/lib/bench/bin, state: directory, mode: "0700"}
    - copy: {src: %[1]s/clusterplan, dest: /var/lib/bench/bin/clusterplan, mode: "0755"}
    - copy: {src: %[1]s/small, dest: "/var/lib/bench/{{ item }}", mode: "0600"}
      loop: [agent.json, node.crt, node.key, ca.crt, cluster.key]
    - shell: "[ -e /var/lib/bench/pid ] || { setsid sleep 3600 </dev/null >/dev/null 2>&1 & echo $! >/var/lib/bench/pid; }"
`

// ansible plays it.
func (s *site) ansible(ctx context.Context) (int64, error) {
	file := filepath.Join(s.dir, "play.yml")
	if err := errors.Join(os.WriteFile(file, fmt.Appendf(nil, playbook, s.dir), 0o644), os.WriteFile(filepath.Join(s.dir, "small"), bytes.Repeat([]byte("x"), 800), 0o600)); err != nil {
		return 0, err
	}
	ms, _, err := s.timed(ctx, "ansible-playbook", "-i", filepath.Join(s.dir, "inventory"), "-u", "root", "--private-key", s.lab.KeyFile(), "-f", strconv.Itoa(len(s.names)), file)
	return ms, err
}
