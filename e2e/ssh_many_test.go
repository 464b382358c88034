package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/internal/sshlab"
)

// Eight hosts. One with another key than the known one, one that lets nobody in, and
// one whose sudo asks for a password are told at once, before anything is touched. Then each host holds its upload till
// all others have come as far, so that an apply that serves one after the other would
// never end; the connection of one is dropped there, the line to another loses much,
// and the same apply goes on.
func TestSSHManyHosts(t *testing.T) {
	l, hosts := sshHosts(t, "n4", "n5", "n6", "n7", "n8")
	n4, n5, n6, n8 := hosts.Hosts[3], hosts.Hosts[4], hosts.Hosts[5], hosts.Hosts[7]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var all []string
	for i, h := range hosts.Hosts {
		all = append(all, fmt.Sprintf("%q: \"10.77.0.%d\"", h.Name, i+1))
	}
	l.env = append(l.env, "CLUSTERPLAN_VAR_hosts={"+strings.Join(all, ", ")+"}")
	nothing := func(what string) {
		t.Helper()
		for _, h := range hosts.Hosts {
			if left, err := filepath.Glob(filepath.Join(h.Dir, "lib", "*")); err != nil || len(left) > 0 {
				t.Errorf("%s: on %s there is %q, %v", what, h.Name, left, err)
			}
		}
	}

	own, err := os.ReadFile(filepath.Join(n5.Dir, "hostkey"))
	must(err)
	another, err := os.ReadFile(filepath.Join(n6.Dir, "hostkey"))
	must(err)
	change := func(key []byte, config ...string) {
		t.Helper()
		n6.Config = config
		must(os.WriteFile(filepath.Join(n5.Dir, "hostkey"), key, 0o600))
		for _, h := range []*sshlab.Host{n5, n6} {
			must(errors.Join(h.Stop(), h.Start()))
		}
	}
	usual := n6.Config
	if _, err := os.Stat("/usr/bin/sudo"); err != nil {
		t.Skip("skipped: sudo is not installed (apt-get install sudo)")
	}
	must(n8.Users())
	l.edit("provider \"ssh\" {", "provider \"ssh\" {\n  sudo = true")
	l.edit("address  = each.value\n", fmt.Sprintf("address  = each.value\n  ssh {\n    user = each.key == \"n8\" ? %q : null\n  }\n", sshlab.UserAsked))
	change(another, append([]string{"DenyUsers root"}, usual...)...)
	l.must(1, "apply", "--auto-approve").wants(t, "nothing was touched",
		"3 checks fail", "10.77.0.5:22: the host key has changed", "10.77.0.6:22: the host does not let root in",
		"10.77.0.8:22: sudo does not let askme be root")
	nothing("three hosts are not as they should be")
	change(own, usual...)
	l.edit("sudo = true", fmt.Sprintf("sudo = true\n  sudo_password = %q", sshlab.Password))

	var gates []func() bool
	var open []func()
	for _, h := range hosts.Hosts {
		held, let := gate(t, h, "cat", "") // what takes an upload
		gates, open = append(gates, held), append(open, let)
	}
	_, done, output := l.begin()
	l.until("all eight hosts take the program at once", func() (bool, string) {
		select {
		case err := <-done:
			t.Fatalf("it has ended before: %v: %s", err, output())
		default:
		}
		n := 0
		for _, held := range gates {
			if held() {
				n++
			}
		}
		return n == len(gates), fmt.Sprintf("%d do: %s", n, output())
	})
	before := logins(t, n4)
	servers, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(err)
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", n4.PID()))
	must(err)
	for _, file := range servers {
		line, err := os.ReadFile(file)
		at, _ := os.Readlink(filepath.Dir(file) + "/ns/pid")
		if err == nil && at == space && strings.HasPrefix(string(line), "sshd") && strings.Contains(string(line), ": root@") {
			var pid int
			_, err = fmt.Sscanf(file, "/proc/%d/", &pid)
			must(errors.Join(err, syscall.Kill(pid, syscall.SIGKILL)))
		}
	}
	l.until("n4 is logged in on again", func() (bool, string) { return logins(t, n4) > before, output() })
	// The line to n7 is so bad that its upload takes seconds.
	network := netlab.At(filepath.Dir(hosts.Dir))
	must(network.Inflict(netlab.Fault{Kind: netlab.FaultLoss, From: netlab.Client, To: "n7", Percent: 15}))
	for _, let := range open {
		let()
	}
	l.until("n7 has the program", func() (bool, string) {
		there, _ := filepath.Glob(filepath.Join(hosts.Hosts[6].Dir, "lib", "clusterplan", "bin", "clusterplan-*"))
		return len(there) > 0, output()
	})
	must(network.Heal())
	l.ended(done, output)
	if text := output(); !strings.HasPrefix(text, "exit status 0\n") {
		t.Fatalf("after a connection was dropped: %s", text)
	}
	l.settled()

	l.must(0, "destroy", "--auto-approve")
	nothing("after destroy")
}

// logins are how often root has logged in on a host, as its own log says.
func logins(t *testing.T, h *sshlab.Host) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(h.Dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(log), "Accepted publickey for root ")
}
