package libvirt

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// TestCopies: people copy disks into another pool, under the same names. Such a copy is
// nobody's: it is not attached, not taken for a disk that is gone, and stays, with the
// image that it stands on. Nor does a disk begin anew because the provider has another
// pool by now, or because the mark of its upload has outlived it.
func TestCopies(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		pool, backup := filepath.Join(lab.Dir, "pool"), filepath.Join(lab.Dir, "backup")
		p := configured(t, lab.URI, map[string]cty.Value{"pool_path": str(pool)})
		p.keys = []string{"ssh-ed25519 AAAA me"}
		w := &world{t: t, p: p}
		image := filepath.Join(lab.Dir, "disk.qcow2")
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "32M")
		if err := os.Mkdir(backup, 0o755); err != nil {
			t.Fatal(err)
		}
		lab.Virsh("pool-define-as", "a", "dir", "--target", backup) // before clusterplan
		lab.Virsh("pool-start", "a")
		const disk, data = "m.0a.disk.qcow2", "data.0d.volume.qcow2"
		volume := object(p, addr.TypeVolume, "data", map[string]cty.Value{"image": str(image)})
		machine := object(p, addr.TypeMachine, "m", map[string]cty.Value{"image": str(image), "accelerator": str(AcceleratorTCG), "wait_for": str(WaitNone), "memory": str("64MiB")})
		v := w.apply(addr.TypeVolume, "data", "0d", nil, volume)
		m := w.apply(addr.TypeMachine, "m", "0a", nil, machine)
		keep := func(dir, name string) {
			t.Helper()
			run(t, "cp", filepath.Join(pool, name), filepath.Join(dir, name))
		}
		for _, name := range []string{disk, data} {
			keep(backup, name)
		}
		lab.Virsh("pool-refresh", "a")
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "0a", m), machine)
		v = w.read(addr.TypeVolume, "data", "0d", v)
		w.settled(addr.TypeVolume, "data", v, volume)

		// The provider gets another pool, and somebody undefines the machine.
		q := configured(t, lab.URI, map[string]cty.Value{"pool": str("a")})
		q.keys = p.keys
		lab.Virsh("destroy", "m")
		defined := lab.Virsh("dumpxml", "--inactive", "m")
		lab.Virsh("undefine", "m")
		if err := os.Remove(filepath.Join(backup, disk)); err != nil {
			t.Fatal(err)
		}
		lab.Virsh("pool-refresh", "a")
		wq := &world{t: t, p: q}
		m = wq.read(addr.TypeMachine, "m", "0a", m)
		if !slices.Contains(m.Health, healthGone) {
			t.Errorf("undefined it reads as %q", m.Health)
		}
		if _, err := wq.try(t.Context(), addr.TypeMachine, "m", "0a", m, machine); err == nil || !strings.Contains(err.Error(), `its disk is in pool clusterplan, where the provider has pool a now`) {
			t.Errorf("with another pool it is made again: %v", err)
		}
		keep(backup, disk)
		lab.Virsh("pool-refresh", "a")
		define(t, lab, defined)
		m = w.apply(addr.TypeMachine, "m", "0a", w.read(addr.TypeMachine, "m", "0a", m), machine)

		// Their own ones go, and a mark of the volume's upload has stayed behind.
		lab.Virsh("destroy", "m")
		lab.Virsh("vol-create-as", "clusterplan", "data.0d."+uploadFile, "0", "--format", "raw")
		grown := w.plan(addr.TypeVolume, "data", v, object(p, addr.TypeVolume, "data", map[string]cty.Value{"image": str(image), "size": str("64MiB")}))
		lab.Virsh("vol-delete", "--pool", "clusterplan", disk)
		lab.Virsh("vol-delete", "--pool", "clusterplan", data)
		if got := w.read(addr.TypeMachine, "m", "0a", m); !slices.Contains(got.Health, healthDiskGone) {
			t.Errorf("a copy is taken for the machine's own disk: it reads as %q", got.Health)
		}
		if got := w.read(addr.TypeVolume, "data", "0d", v); got != nil {
			t.Errorf("a copy, or a mark, is taken for the volume: %+v", got)
		}
		if _, err := p.Apply(t.Context(), providers.ApplyRequest{Addr: at(addr.TypeVolume, "data"), Type: addr.TypeVolume, ID: "0d", Phase: providers.PhaseUpdate, Prior: v, Planned: grown.Planned}); err == nil || !strings.Contains(err.Error(), "a new one would be empty") {
			t.Errorf("a volume of which only a mark is there grows: %v", err)
		}

		w.apply(addr.TypeMachine, "m", "0a", m, cty.NilVal)
		w.apply(addr.TypeVolume, "data", "0d", v, cty.NilVal)
		for _, name := range []string{disk, data} {
			if got := run(t, "qemu-img", "check", "-U", filepath.Join(backup, name)); !strings.Contains(got, "No errors") {
				t.Errorf("the copy %s: %s", name, got)
			}
			lab.Virsh("vol-delete", "--pool", "a", name)
		}
		p.tidy(t.Context())
		lab.Virsh("pool-destroy", "a")
		lab.Virsh("pool-undefine", "a")
		nothingLeft(t, lab, pool)
	})
}
