package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
)

// The whole chain of examples/libvirt, in one apply: a network, three machines
// under emulation, a node on each over SSH, a cluster, a group whose address
// answers. A machine that hangs is survived at once, turned off by the fence that its
// node has by default, and started by the next apply; destroy leaves nothing on the
// hypervisor.
func TestMachines(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		guest := libvirtlab.Tiny(t)
		l := copyExample(t, "libvirt")
		l.bound = 5 * time.Minute // of one command, on a busy machine
		key := keyOf(t, lab)
		l.env = append(l.env, "HOME="+lab.Dir, "CLUSTERPLAN_VAR_key="+key, "CLUSTERPLAN_VAR_image="+filepath.Dir(guest.Kernel), "CLUSTERPLAN_VAR_accelerator=tcg")
		fencer, hostKey := lab.SSHD(t)
		l.edit("    enabled = false # leases are enough for this group; docs/providers.md has what turns a hung machine off", fmt.Sprintf(`
    uri         = "qemu+ssh://root@10.88.0.1/system"
    private_key = var.fencer
    delay       = "10s" # of a machine that is only slow, for the test machine is
    host_key    = %q`, hostKey))
		l.edit("provider \"libvirt\" {", "variable \"fencer\" {\n  type      = string\n  sensitive = true\n}\n\nprovider \"libvirt\" {")
		secret, err := os.ReadFile(fencer)
		if err != nil {
			t.Fatal(err)
		}
		l.env = append(l.env, "CLUSTERPLAN_VAR_fencer="+string(secret))
		l.edit("model = \"majority_node_set\"\n  }", "model = \"majority_node_set\"\n  }\n\n  heartbeat {\n    profile = \"mscs\" # three machines under emulation, on a busy one\n  }")
		// Of what a script has started nobody knows that it ends with a lease: such a group
		// is taken from a node that was proven off.
		l.edit("  resource \"generic_application\" \"server\" {", "  resource \"script\" \"mark\" {\n    start = [\"/bin/true\"]\n    stop  = [\"/bin/true\"]\n  }\n\n  resource \"generic_application\" \"server\" {")
		hc := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		// answers waits until the address is answered by another node than not.
		answers := func(not string) (node string) {
			t.Helper()
			l.until("the address answers", func() (bool, string) {
				res, err := hc.Get("http://10.88.0.100:8077/")
				if err != nil {
					return false, err.Error()
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				node = strings.TrimSpace(string(body))
				return err == nil && node != not, node
			})
			return node
		}

		l.run("plan").wants(t, `machine.n["n1"]`, "known after apply", "13 to add", "fence.machines", `["private_key"]`, "fence, at its time-outs,")
		begun := time.Now()
		l.apply()
		owner := answers("")
		t.Logf("from nothing to an address that answers: %v", time.Since(begun).Round(100*time.Millisecond))
		l.settled()

		lab.Virsh("suspend", owner)
		begun = time.Now()
		answers(owner)
		t.Logf("a machine that hangs costs %v", time.Since(begun).Round(100*time.Millisecond))
		if got := lab.Virsh("domstate", owner); got != "shut off" {
			t.Errorf("the group goes on, and the machine that hung is %q", got)
		}
		l.run("plan").wants(t, "machine is off")
		begun = time.Now()
		l.apply()
		t.Logf("a machine that was off is a node again: %v", time.Since(begun).Round(100*time.Millisecond))
		l.settled()

		l.must(0, "destroy", "--auto-approve")
		l.nothingOn(lab)
	})
}

// nothingOn wants a hypervisor and a state as before the first apply.
func (l *lab) nothingOn(lab *libvirtlab.Lab) {
	l.t.Helper()
	for _, list := range [][]string{{"list", "--all", "--name"}, {"net-list", "--all", "--name"}, {"pool-list", "--all", "--name"}} {
		if left := strings.TrimSpace(lab.Virsh(list...)); left != "" {
			l.t.Errorf("destroy leaves on the hypervisor (%s): %s", list[0], left)
		}
	}
	for _, at := range []string{"/var/lib/libvirt/clusterplan", "/var/lib/libvirt/qemu/nvram/*"} {
		if left, _ := filepath.Glob(at); len(left) > 0 {
			l.t.Errorf("destroy leaves files on the hypervisor: %q", left)
		}
	}
	for _, o := range l.state().Objects {
		l.t.Errorf("destroy leaves %s in the state", o.Addr)
	}
}

// One machine with Debian, cloud-init and systemd, from the image of
// examples/libvirt/image-debian that CLUSTERPLAN_DEBIAN_IMAGE names: its node is a unit
// of systemd's, which starts an agent again that was killed or hangs, and after a
// reboot; a machine that was turned off is up again after an apply. With
// CLUSTERPLAN_FIRMWARE=uefi it boots by that, with CLUSTERPLAN_ACCELERATOR=kvm
// faster. It takes minutes under emulation, so it runs only where it is asked for.
func TestDebianMachine(t *testing.T) {
	image := os.Getenv("CLUSTERPLAN_DEBIAN_IMAGE")
	if image == "" {
		t.Skip("CLUSTERPLAN_DEBIAN_IMAGE names no image: examples/libvirt/image-debian/build FILE makes one")
	}
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		l := copyExample(t, "libvirt")
		key := keyOf(t, lab)
		l.env = append(l.env, "HOME="+lab.Dir, "CLUSTERPLAN_VAR_key="+key, "CLUSTERPLAN_VAR_accelerator="+cmp.Or(os.Getenv("CLUSTERPLAN_ACCELERATOR"), "tcg"))
		l.bound = 25 * time.Minute
		l.edit(`toset(["n1", "n2", "n3"])`, `toset(["n1"])`)
		l.edit(`"majority_node_set"`, `"single_node"`)
		l.edit(`kernel      = "${var.image}/vmlinuz"`, fmt.Sprintf("image = %q\n  disk_size = \"4GiB\"\n  wait_timeout = \"20m\"", image))
		l.edit(`initrd      = "${var.image}/initrd"`, fmt.Sprintf("firmware = %q", cmp.Or(os.Getenv("CLUSTERPLAN_FIRMWARE"), "bios")))
		l.edit(`cmdline     = "console=ttyS0 quiet panic=-1 random.trust_bootloader=on cryptomgr.notests"`, "")
		l.edit(`"256MiB"`, "\"1GiB\"\n  vcpus = 2")
		l.edit(`user             = "root"`, "user = \"root\"\n  connect_timeout = \"3m\"")
		// On a machine that is busy, an agent in a machine under emulation may come later
		// than an apply waits for it; the next one goes on from there.
		applies := func() {
			l.until("an apply has got to its end", func() (bool, string) {
				r := l.run("apply", "--auto-approve")
				return r.code == 0, r.String()
			})
		}
		begun := time.Now()
		took := func(what string) {
			t.Logf("%s: %v", what, time.Since(begun).Round(time.Second))
			begun = time.Now()
		}
		applies()
		took("from nothing to a node")
		var address string
		for _, o := range l.state().Objects {
			var m struct {
				Address string `json:"address"`
			}
			if o.Type == "machine" && json.Unmarshal(o.Attributes, &m) == nil {
				address = m.Address
			}
		}
		on := func(command string) string {
			out, _ := exec.Command("ssh", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@"+address, command).CombinedOutput()
			return strings.TrimSpace(string(out))
		}
		settles := func() {
			l.until("there is nothing to do about it", func() (bool, string) {
				r := l.run("plan", "--detailed-exitcode")
				return r.code == 0, r.String()
			})
		}
		if got := on("cloud-init status --wait; systemctl is-active clusterplan-n1; systemctl is-enabled clusterplan-n1; systemctl --failed --no-legend"); got != "status: done\nactive\nenabled" {
			t.Errorf("of cloud-init and the unit it says %q", got)
		}
		if got := on("cloud-init schema --system 2>&1"); !strings.Contains(got, "Valid cloud-config") {
			t.Errorf("of its seed cloud-init says %s", got)
		}
		l.settled()
		const pid = "systemctl show -p MainPID --value clusterplan-n1"
		for _, signal := range []string{"KILL", "STOP"} { // dead, and hanging: systemd's watchdog
			was := on(pid)
			on("kill -" + signal + " " + was)
			l.until("systemd has started the agent again", func() (bool, string) {
				now := on("systemctl is-active clusterplan-n1; " + pid)
				return strings.HasPrefix(now, "active\n") && now != "active\n"+was, now
			})
			settles()
			took("an agent was started again after SIG" + signal)
		}

		const boot = "cat /proc/sys/kernel/random/boot_id"
		was := on(boot)
		on("systemctl reboot")
		l.until("the guest has booted again", func() (bool, string) {
			now := on(boot)
			return len(now) == len(was) && now != was, now
		})
		settles()
		took("a guest that was rebooted is a node again")

		lab.Virsh("destroy", "n1")
		l.run("plan").wants(t, "machine is off")
		applies()
		l.settled()
		took("a machine that was turned off is a node again")
		l.must(0, "destroy", "--auto-approve")
		l.nothingOn(lab)
	})
}

func keyOf(t *testing.T, lab *libvirtlab.Lab) string {
	t.Helper()
	key := filepath.Join(lab.Dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return key
}
