package e2e

import (
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
	if !libvirtlab.Inside() {
		t.Parallel()
	}
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
		if err := os.Truncate(image, 96<<20); err != nil {
			t.Fatal(err)
		}

		l.edit(`panic=-1 random`, `panic=-1 tiny.stop random`)
		l.must(1, "apply", "--auto-approve").wants(t, "machine n1 stopped by itself", "The last lines of its console:", "tiny: starts on 1 processors", "skipped: machine.n")
		l.edit(`panic=-1 tiny.stop random`, `panic=-1 random`)

		cut := 0
		for _, stage := range []struct {
			at      string
			destroy bool // and begin anew
		}{
			{`machine.n["n1"]: `, true},
			{"network.lab: creating...", false},
			{"volume.data: creating...", false},
			{"uploading data.img", true},
			{`machine.n["n1"]: creating...`, false},
			{"... started", true},
			{"... started", false},
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
			if text := output(); strings.Contains(text, "exit status 130") {
				cut++
			} else {
				t.Errorf("interrupted at %q it ends with %s", stage.at, text)
			}
			t.Logf("at %q:\n%s", stage.at, output())
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
