package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
)

// A machine that never boots, and Ctrl-C, twice, at every stage from a network to a
// node: each run ends with a clear error and leaves nothing that the next one
// doesn't know. It goes on from there, or destroys all of it.
func TestMachinesInterrupted(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		guest := libvirtlab.Tiny(t)
		l := copyExample(t, "libvirt")
		l.bound = 5 * time.Minute
		l.env = append(l.env, "HOME="+lab.Dir, "CLUSTERPLAN_VAR_key="+keyOf(t, lab), "CLUSTERPLAN_VAR_image="+filepath.Dir(guest.Kernel), "CLUSTERPLAN_VAR_accelerator=tcg")
		l.edit(`toset(["n1", "n2", "n3"])`, `toset(["n1"])`)
		l.edit(`"majority_node_set"`, `"single_node"`)
		l.edit(`  network     = network.lab`, `  network     = network.lab
  volumes     = [volume.data]`)
		l.edit(`cluster "lab" {`, `volume "data" {
  provider = libvirt
  image    = "data.img"
}

cluster "lab" {`)
		image := filepath.Join(l.dir, "data.img")
		if err := os.WriteFile(image, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 64<<20); err != nil {
			t.Fatal(err)
		}

		l.edit(`panic=-1 random`, `panic=-1 tiny.stop random`)
		l.must(1, "apply", "--auto-approve").wants(t, "machine n1 stopped by itself", "The last lines of its console:", "tiny: starts on 1 processors", "skipped: machine.n")
		l.edit(`panic=-1 tiny.stop random`, `panic=-1 random`)

		for _, stage := range []struct {
			at      string
			destroy bool // and begin anew
		}{
			{"... started", true}, // in place of the one that didn't boot
			{"network.lab: creating...", false},
			{"volume.data: creating...", false},
			{"uploading data.img", true},
			{`machine.n["n1"]: creating...`, false},
			{"has its address", false},
			{"answers SSH", false},
			{`node.n["n1"]: creating...`, false},
		} {
			pid, done, output := l.begin()
			l.prints(stage.at, output)
			_ = syscall.Kill(pid, syscall.SIGINT) // where it has ended by now, that is seen below
			l.prints("Interrupted: finishing", output)
			_ = syscall.Kill(pid, syscall.SIGINT)
			l.ended(done, output)
			if text := output(); !strings.Contains(text, "exit status 130") || !strings.Contains(text, "Error: Interrupted") {
				t.Errorf("interrupted at %q it ends with %s", stage.at, text)
			}
			if stage.destroy {
				l.must(0, "destroy", "--auto-approve")
				l.nothingOn(lab)
			}
		}
		l.apply()
		l.settled()
		l.must(0, "destroy", "--auto-approve")
		l.nothingOn(lab)
	})
}

// A user who may not use libvirtd's socket, and a libvirtd that does not run: nothing
// is made, the error says what to do, and then the same command works.
func TestLibvirtRefused(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, daemon *libvirtlab.Lab) {
		const nobody, socket = 65534, "/run/libvirt/libvirt-sock"
		const definition = `
provider "libvirt" {}

network "lab" {
  provider = libvirt
  subnet   = "10.88.0.0/24"
}

cluster "lab" {
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}
`
		dir := filepath.Join(daemon.Dir, "definition")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, nobody, nobody), os.Chmod(daemon.Dir, 0o755),
			os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(definition), 0o644)); err != nil {
			t.Fatal(err)
		}
		as := filepath.Join(daemon.Dir, "as-nobody")
		if err := errors.Join(os.Chmod(filepath.Dir(program), 0o755),
			os.WriteFile(as, fmt.Appendf(nil, "#!/bin/sh\nexec setpriv --reuid=%d --regid=%d --clear-groups %s \"$@\"\n", nobody, nobody, program), 0o755)); err != nil {
			t.Fatal(err)
		}
		l := &lab{t: t, dir: dir, program: as, env: []string{"HOME=" + dir}}
		if err := os.Chmod(socket, 0o700); err != nil {
			t.Fatal(err)
		}
		l.must(1, "apply", "--auto-approve", "--target", "network.lab").wants(t, "libvirtd unreachable at "+socket, "your user may not use this socket: add it to the group libvirt and log in again (usermod -aG libvirt NAME)")
		daemon.StopDaemon()
		if err := os.Chmod(socket, 0o777); err != nil {
			t.Fatal(err)
		}
		l.must(1, "apply", "--auto-approve", "--target", "network.lab").wants(t, "no libvirtd runs on this machine: install it (Debian: apt install libvirt-daemon-system qemu-system-x86) and start it")
		daemon.StartDaemon()
		if left := daemon.Virsh("net-list", "--all", "--name"); left != "" {
			t.Errorf("who was refused has made %s", left)
		}
		if err := os.Chmod(socket, 0o777); err != nil {
			t.Fatal(err)
		}
		l.must(0, "apply", "--auto-approve", "--target", "network.lab")
		l.must(0, "plan", "--detailed-exitcode", "--target", "network.lab")
		l.must(0, "destroy", "--auto-approve")
		l.nothingOn(daemon)
	})
}
