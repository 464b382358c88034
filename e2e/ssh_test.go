package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/internal/sshlab"
)

// sshHosts are three hosts with OpenSSH's server, each in a network namespace,
// and a lab whose commands run in the client's. Nothing leads from there to the
// third host but SSH by way of the second. There may be more hosts, without a node.
func sshHosts(t *testing.T, more ...string) (*lab, *sshlab.Lab) {
	t.Helper()
	if err := sshlab.Allowed(); err != nil {
		t.Skipf("no hosts with sshd here: %v", err)
	}
	l := copyExample(t, "ssh")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	network := netlab.At(dir)
	hosts, err := sshlab.New(filepath.Join(dir, "hosts"))
	if err != nil {
		t.Fatal(err)
	}
	names := append([]string{"n1", "n2", "n3"}, more...)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "hosts", "*", "lib", "clusterplan", "nodes", "*", "log", "agent.log"))
			for _, log := range logs {
				data, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", log, data[max(0, len(data)-2000):])
			}
		}
		if err := hosts.Close(); err != nil {
			t.Error(err)
		}
		for _, name := range names {
			if err := network.Unwire(name); err != nil {
				t.Error(err)
			}
		}
	})
	for i, name := range names {
		seat, err := network.Assign(name, netlab.Networks{netip.MustParsePrefix("10.77.0.0/24")}, netip.Addr{}, i)
		if err == nil {
			err = network.Wire(name)
		}
		if err == nil {
			// What a test puts in a host's bin is found there first.
			_, err = hosts.Add(name, seat.Namespace, seat.Address().String(), 22,
				"SetEnv SHLVL=1 PATH="+filepath.Join(dir, "hosts", name, "bin")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := network.Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := network.Inflict(netlab.Fault{Kind: netlab.FaultCut, From: netlab.Client, To: "n3"}, netlab.Fault{Kind: netlab.FaultCut, From: "n3", To: netlab.Client}); err != nil {
		t.Fatal(err)
	}
	err = os.Mkdir(filepath.Join(dir, ".ssh"), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ".ssh", "config"), []byte("Host 10.77.0.3\n  ProxyJump root@10.77.0.2\n"+
			"Host 10.77.0.2\n  IdentityFile "+hosts.KeyFile()+"\n  UserKnownHostsFile "+hosts.KnownHosts()+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.namespace = r.Seats[netlab.Client].Namespace
	l.env = append(l.env, "CLUSTERPLAN_VAR_address=10.77.0.100/24", "CLUSTERPLAN_VAR_private_key_file="+hosts.KeyFile(),
		"CLUSTERPLAN_VAR_known_hosts_file="+hosts.KnownHosts(), "HOME="+dir)
	return l, hosts
}

// asks asks the group's address from the client's namespace.
func (l *lab) asks() string { return fetchFrom(l.namespace, "http://10.77.0.100:8077/") }

// unready has every host lack something else: an apply tells of all of it at
// once, and leaves them as they were.
func (l *lab) unready(hosts *sshlab.Lab) {
	l.t.Helper()
	n1, n2, n3 := hosts.Hosts[0], hosts.Hosts[1], hosts.Hosts[2]
	must := func(err error) {
		l.t.Helper()
		if err != nil {
			l.t.Fatal(err)
		}
	}
	program := func(h *sshlab.Host, name, text string) string {
		l.t.Helper()
		file := filepath.Join(h.Dir, "bin", name)
		must(os.MkdirAll(filepath.Dir(file), 0o755))
		must(os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
		return file
	}
	within := func(h *sshlab.Host, argv ...string) {
		l.t.Helper()
		must(h.Within(argv...))
	}
	within(n1, "mount", "-t", "tmpfs", "-o", "size=8m", "none", "/var/lib")
	uname := program(n1, "uname", `case $* in *-m*) /usr/bin/uname "$@" | sed 's/x86_64\|aarch64/riscv64/';; *) exec /usr/bin/uname "$@";; esac`)
	var taken net.Listener
	must(netlab.Do(n2.Namespace, func() (err error) {
		taken, err = net.Listen("tcp", "10.77.0.2:7400")
		return err
	}))
	date := program(n3, "date", `case $1 in +%s.%N) echo $(($(/usr/bin/date +%s) + 3600)).000000000;; *) exec /usr/bin/date "$@";; esac`)

	r := l.must(1, "apply", "--auto-approve")
	r.wants(l.t, "Not all hosts are ready, and nothing was touched", "5 checks fail", "clusterplan doctor",
		"10.77.0.1:22 (node.n[\"n1\"]): disk", "8 MiB free in /var/lib", "10.77.0.1:22 (node.n[\"n1\"]): architecture", "GOARCH=riscv64",
		"10.77.0.2:22 (node.n[\"n2\"]): port", "10.77.0.2:7400 is taken by another program",
		"10.77.0.3:22 (through 10.77.0.2:22) (node.n[\"n3\"]): clock", "from this machine's: certificates", "between hosts (node.n[\"n1\"], node.n[\"n2\"], node.n[\"n3\"]): clocks")
	for _, h := range hosts.Hosts {
		if left, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/var/lib/*", h.PID())); err != nil || len(left) > 0 {
			l.t.Errorf("%s: it was touched: %q, %v", h.Name, left, err)
		}
	}
	within(n1, "umount", "/var/lib")
	must(errors.Join(os.Remove(uname), taken.Close(), os.Remove(date)))
}

// The life of a cluster on three hosts over SSH: made, looked at, an agent
// killed, upgraded, a host away, destroyed.
func TestSSH(t *testing.T) {
	l, hosts := sshHosts(t)
	n1, n3 := hosts.Hosts[0], hosts.Hosts[2]
	answers := func(want string) {
		t.Helper()
		l.until("the address answers as "+want, func() (bool, string) { got := l.asks(); return got == want, got })
	}
	agent := func(h *sshlab.Host) int {
		t.Helper()
		all, err := h.Processes()
		if err != nil {
			t.Fatal(err)
		}
		for pid, line := range all {
			if strings.Contains(line, "/clusterplan agent --dir ") {
				return pid
			}
		}
		return 0
	}
	// The hosts' own logs say how often a run has logged in: once on each, for all that
	// it does there, with the way to n3 through n2, and n3's API, which it can't reach.
	once := func(what string, run func()) {
		t.Helper()
		before := map[string]int{}
		for _, h := range hosts.Hosts {
			before[h.Name] = logins(t, h)
		}
		run()
		for _, h := range hosts.Hosts {
			if n := logins(t, h) - before[h.Name]; n != 1 {
				t.Errorf("%s: it logs in %d times on %s", what, n, h.Name)
			}
		}
	}
	l.unready(hosts)
	once("the apply that makes all", func() { l.apply() })
	answers("n1")
	once("a plan with nothing to do", l.settled)

	was := agent(n1)
	if err := syscall.Kill(was, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.until("n1's agent is started again", func() (bool, string) { now := agent(n1); return now != 0 && now != was, fmt.Sprint(now) })
	l.until("nothing is to be done about it", func() (bool, string) {
		r := l.run("plan", "--detailed-exitcode")
		return r.code == 0, r.String()
	})

	data, err := os.ReadFile(l.program)
	if err != nil {
		t.Fatal(err)
	}
	l.program = filepath.Join(t.TempDir(), "clusterplan")
	if err := os.WriteFile(l.program, append(data, "another build"...), 0o755); err != nil {
		t.Fatal(err)
	}
	l.run("plan").wants(t, "agent program differs", "3 to change")
	l.apply()
	l.settled()
	if programs, err := os.ReadDir(filepath.Join(n3.Dir, "lib", "clusterplan", "bin")); err != nil || len(programs) != 2 {
		t.Errorf("the program before is to stay, and no other: %v, %v", programs, err)
	}

	if err := n3.Stop(); err != nil {
		t.Fatal(err)
	}
	l.run("plan").wants(t, "n3", "10.77.0.3")
	if err := n3.Start(); err != nil {
		t.Fatal(err)
	}
	// After a boot nobody has started its agent: there is no systemd.
	l.run("plan").wants(t, "drifted: agent not running", "steps: start")
	l.apply()
	l.settled()

	l.must(0, "destroy", "--auto-approve")
	for _, h := range hosts.Hosts {
		if left, err := filepath.Glob(filepath.Join(h.Dir, "lib", "*")); err != nil || len(left) > 0 {
			t.Errorf("%s: files are left: %q, %v", h.Name, left, err)
		}
		l.until("no process is left on "+h.Name, func() (bool, string) {
			all, err := h.Processes()
			return err == nil && len(all) == 0, fmt.Sprint(all, err)
		})
	}
}
