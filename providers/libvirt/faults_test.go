package libvirt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// TestImages: images are uploaded once, found by their content, finished after
// an upload that was cut off, and gone with the last that stands on them; and
// what can go wrong with them, and with machines made of them, says what to do.
func TestImages(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		pool := filepath.Join(lab.Dir, "pool")
		p := configured(t, lab.URI, map[string]cty.Value{"pool_path": str(pool)})
		p.stall = 50 * time.Millisecond
		p.keys = []string{"ssh-ed25519 AAAA me"}
		w := &world{t: t, p: p}
		image := filepath.Join(lab.Dir, "disk.qcow2")
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "32M")
		digest := fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, image))))
		volume := func(name string, more map[string]cty.Value) cty.Value {
			set := map[string]cty.Value{"image": str(image)}
			for k, v := range more {
				set[k] = v
			}
			return object(p, addr.TypeVolume, name, set)
		}

		// A part of the image is there already, of an upload that was cut off.
		if err := os.MkdirAll(pool, 0o755); err != nil {
			t.Fatal(err)
		}
		half := filepath.Join(pool, "image-"+digest)
		if err := os.WriteFile(half, []byte("QFI"), 0o600); err != nil {
			t.Fatal(err)
		}
		plain := volume("a", map[string]cty.Value{"image_digest": str("sha256:" + digest)})
		a := w.apply(addr.TypeVolume, "a", "0a", nil, plain)
		w.settled(addr.TypeVolume, "a", w.read(addr.TypeVolume, "a", "0a", a), plain)
		if read(t, half) != read(t, image) {
			t.Fatal("what an upload that was cut off has left is taken for the image")
		}
		if got := run(t, "qemu-img", "info", "-U", text(a.Value, "path")); !strings.Contains(got, "32 MiB") || !strings.Contains(got, half) {
			t.Fatalf("the volume does not stand on its image:\n%s", got)
		}
		grown := volume("a", map[string]cty.Value{"image_digest": str("sha256:" + digest), "size": str("48MiB")})
		a = w.apply(addr.TypeVolume, "a", "0a", a, grown)
		w.settled(addr.TypeVolume, "a", a, grown)
		if _, err := p.Plan(providers.PlanRequest{Type: addr.TypeVolume, Prior: a, Config: volume("a", map[string]cty.Value{"image_digest": str("sha256:" + digest), "size": str("16MiB")})}); err == nil || !strings.Contains(err.Error(), "can only grow") {
			t.Errorf("a volume that shrinks gives %v", err)
		}

		// A machine from the image: it never boots, and says so; the seed is there.
		machine := object(p, addr.TypeMachine, "m", map[string]cty.Value{"image": str(image), "accelerator": str(AcceleratorTCG), "wait_for": str(WaitAddress), "wait_timeout": str("2s"), "network": str("lab")})
		network := object(p, addr.TypeNetwork, "lab", map[string]cty.Value{"subnet": str("10.88.0.0/24"), "mode": str(NetworkIsolated)})
		net := w.apply(addr.TypeNetwork, "lab", "0e", nil, network)
		_, err := w.try(t.Context(), addr.TypeMachine, "m", "0b", nil, machine)
		if err == nil || !strings.Contains(err.Error(), "has not come up within 2s: it has not asked for its address 10.88.0.2") || !strings.Contains(err.Error(), "console") {
			t.Errorf("a machine that never boots gives %v", err)
		}
		m := w.read(addr.TypeMachine, "m", "0b", nil)
		if plan := w.plan(addr.TypeMachine, "m", m, machine); len(plan.Phases) != 1 || len(plan.Drift) != 1 || plan.Drift[0] != healthNotUp {
			t.Errorf("after it the plan is %q %q", plan.Phases, plan.Drift)
		}
		seed := read(t, filepath.Join(pool, "m.0b.seed.iso"))
		for _, want := range []string{"local-hostname: m", "ssh-ed25519 AAAA me", "dhcp4: true", "BEGIN OPENSSH PRIVATE KEY", text(m.Value, "ssh_host_key"), "CIDATA"} {
			if !strings.Contains(strings.ReplaceAll(seed, "cidata", "CIDATA"), want) {
				t.Errorf("the seed has no %q", want)
			}
		}
		// One that hangs: what its console said last is told, while it is waited for and then.
		if guest := libvirtlab.ImageDir + "/vmlinuz"; exists(guest) {
			w.said = nil
			hangs := object(p, addr.TypeMachine, "hangs", map[string]cty.Value{"kernel": str(guest), "initrd": str(libvirtlab.ImageDir + "/initrd"), "cmdline": str("console=ttyS0 panic=-1 tiny.hang"),
				"memory": str("128MiB"), "accelerator": str(AcceleratorTCG), "wait_timeout": str("11s"), "network": str("lab")})
			_, err := w.try(t.Context(), addr.TypeMachine, "hangs", "02", nil, hangs)
			if err == nil || !strings.Contains(err.Error(), "machine hangs has not come up within 11s: it has not asked for its address") || !regexp.MustCompile(`(?s)wait_timeout.*\. The last lines of its console:\n.*\[ +[0-9]+\.[0-9]+\] `).MatchString(err.Error()) {
				t.Errorf("a machine that hangs gives %v", err)
			}
			if said := strings.Join(w.said, "\n"); !regexp.MustCompile(`it has not asked for its address [0-9.]+ after 1[0-9]s; its console says: .`).MatchString(said) {
				t.Errorf("while it was waited for: %q", said)
			}
			w.apply(addr.TypeMachine, "hangs", "02", onlyID("02"), cty.NilVal)
		}

		// What the definition gives for cloud-init is on the seed as it is, and in no
		// text of the hypervisor's.
		blocks := machineSchema().Blocks
		ci := schema.BlockDefault(blocks[slices.IndexFunc(blocks, func(b spec.Block) bool { return b.Name == "cloud_init" })]).AsValueMap()
		ci["user_data"], ci["network_config"] = str("#cloud-config\npassword: hush\n"), str("version: 2 # of mine\n")
		told := object(p, addr.TypeMachine, "told", map[string]cty.Value{"image": str(image), "accelerator": str(AcceleratorTCG), "wait_for": str(WaitNone), "cloud_init": cty.ObjectVal(ci)})
		o := w.apply(addr.TypeMachine, "told", "01", nil, told)
		w.settled(addr.TypeMachine, "told", w.read(addr.TypeMachine, "told", "01", o), told)
		if seed := read(t, filepath.Join(pool, "told.01.seed.iso")); !strings.Contains(seed, text(cty.ObjectVal(ci), "user_data")) || !strings.Contains(seed, text(cty.ObjectVal(ci), "network_config")) || !strings.Contains(seed, "local-hostname: told") || strings.Contains(seed, "ssh-ed25519") {
			t.Error("the seed is not what the definition says")
		}
		if got := lab.Virsh("dumpxml", "told"); strings.Contains(got, "hush") || !strings.Contains(got, "sha256:") {
			t.Errorf("the hypervisor knows of the machine:\n%s", got)
		}
		w.apply(addr.TypeMachine, "told", "01", o, cty.NilVal)

		// Its disks alone are left, as if it had died before it was defined.
		lab.Virsh("destroy", "m")
		lab.Virsh("undefine", "m")
		if o := w.read(addr.TypeMachine, "m", "0b", nil); o == nil || o.Health[0] != healthGone {
			t.Errorf("a machine of which only disks are there reads as %+v", o)
		}

		other := filepath.Join(lab.Dir, "raw.img")
		if err := os.WriteFile(other, make([]byte, 24<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		small := filepath.Join(lab.Dir, "small")
		if err := os.MkdirAll(small, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=8m"); err != nil {
			t.Fatal(err)
		}
		run(t, "virsh", "-q", "pool-define-as", "small", "dir", "--target", small)
		run(t, "virsh", "-q", "pool-start", "small")
		for want, config := range map[string]cty.Value{
			"there is no file":                          volume("x", map[string]cty.Value{"image": str("none.qcow2")}),
			"another file than the one that was meant":  volume("x", map[string]cty.Value{"image_digest": str("sha256:" + strings.Repeat("0", 64))}),
			"the image " + image + " has 32MiB already": volume("x", map[string]cty.Value{"size": str("1MiB")}),
			"pool small is full: raw.img needs 24MiB":   volume("x", map[string]cty.Value{"pool": str("small"), "image": str(other)}),
			`no storage pool "none" (it has `:           volume("x", map[string]cty.Value{"pool": str("none")}),
			"has no volume \"nothing\"":                 object(p, addr.TypeMachine, "x", map[string]cty.Value{"volumes": cty.ListVal([]cty.Value{str("nothing")})}),
			"nobody could log in to machine":            object(p, addr.TypeMachine, "x", map[string]cty.Value{"image": str(image)}),
			"has no network \"nowhere\"":                object(p, addr.TypeMachine, "x", map[string]cty.Value{"volumes": cty.ListVal([]cty.Value{str("a")}), "network": str("nowhere")}),
		} {
			typ := addr.TypeVolume
			if config.Type().HasAttribute("vcpus") {
				typ = addr.TypeMachine
			}
			keys := p.keys
			if strings.HasPrefix(want, "nobody") {
				p.keys = nil
			}
			_, err := w.try(t.Context(), typ, "x", "0c", nil, config)
			if p.keys = keys; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			w.apply(typ, "x", "0c", onlyID("0c"), cty.NilVal)
		}

		t.Run("pool that fills", func(t *testing.T) { fills(t, lab, p) })

		w.apply(addr.TypeMachine, "m", "0b", m, cty.NilVal)
		w.apply(addr.TypeVolume, "a", "0a", a, cty.NilVal)
		w.apply(addr.TypeNetwork, "lab", "0e", net, cty.NilVal)
		run(t, "virsh", "-q", "pool-destroy", "small")
		run(t, "virsh", "-q", "pool-undefine", "small")
		nothingLeft(t, lab, pool)
	})
}

// fills: a pool gets full while an image is uploaded, or just before a disk, or the seed
// of a machine, is made. It is said, what has come so far takes no room, and the
// next apply goes on.
func fills(t *testing.T, lab *libvirtlab.Lab, p *Provider) {
	const size = 20 << 20
	dir, image, filler := filepath.Join(lab.Dir, "tight"), filepath.Join(lab.Dir, "random.img"), filepath.Join(lab.Dir, "tight", "filler")
	noise := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(noise)
	if err := errors.Join(os.MkdirAll(dir, 0o755), syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"), os.WriteFile(image, noise, 0o600)); err != nil {
		t.Fatal(err)
	}
	lab.Virsh("pool-define-as", "tight", "dir", "--target", dir)
	lab.Virsh("pool-start", "tight")
	fill := func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
	}
	volume := object(p, addr.TypeVolume, "v", map[string]cty.Value{"pool": str("tight"), "image": str(image)})
	apply := func(phase string, planned cty.Value, progress func(string)) (*providers.Object, error) {
		res, err := p.Apply(t.Context(), providers.ApplyRequest{Addr: at(addr.TypeVolume, "v"), Type: addr.TypeVolume, ID: "0f", Phase: phase, Planned: planned, Progress: progress, Prior: &providers.Object{ID: "0f", Value: volume}})
		return res.Object, err
	}
	told := func(when string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "the storage pool tight is full") || !strings.Contains(err.Error(), "make room there, or name another pool") {
			t.Errorf("a pool that fills %s gives %v", when, err)
		}
		var s syscall.Statfs_t
		if err := errors.Join(os.Remove(filler), syscall.Statfs(dir, &s)); err != nil {
			t.Fatal(err)
		}
		if free := int64(s.Bavail) * s.Bsize; when == "during an upload" && free < size {
			t.Errorf("of a pool that fills %s %d bytes are left: what was uploaded still takes room", when, free)
		}
	}
	// The file changes while it is uploaded.
	changed := slices.Clone(noise)
	changed[size-1]++
	_, err := apply(providers.PhaseCreate, volume, func(said string) {
		if strings.Contains(said, "10%") {
			if err := os.WriteFile(image, changed, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	if left, _ := filepath.Glob(filepath.Join(dir, imagePrefix+"*")); err == nil || !strings.Contains(err.Error(), "changed while it was uploaded") || len(left) > 0 {
		t.Errorf("a file that changes while it is uploaded gives %v, and leaves %q", err, left)
	}
	if err := os.WriteFile(image, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = apply(providers.PhaseCreate, volume, func(said string) {
		if strings.Contains(said, "70%") { // more than 4 MiB are there by now
			fill()
		}
	})
	told("during an upload", err)
	if o, err := p.Read(t.Context(), providers.ReadRequest{Type: addr.TypeVolume, ID: "0f"}); err != nil || o.Object == nil {
		t.Errorf("what was begun reads as %+v, %v", o.Object, err)
	}
	_, err = apply(providers.PhaseCreate, volume, func(said string) {
		if strings.Contains(said, "100%") {
			fill()
		}
	})
	told("before the disk is made", err)
	v, err := apply(providers.PhaseCreate, volume, func(string) {})
	if err != nil || v == nil {
		t.Fatalf("with room again: %v", err)
	}
	if got := run(t, "qemu-img", "compare", "-U", image, text(v.Value, "path")); !strings.Contains(got, "identical") {
		t.Errorf("the volume is not the image: %s", got)
	}
	if _, err := apply(providers.PhaseDelete, cty.NilVal, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left in the pool: %q", left)
	}
	lab.Virsh("pool-destroy", "tight")
	lab.Virsh("pool-undefine", "tight")
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// onlyID is an object of which only the id is known.
func onlyID(id string) *providers.Object { return &providers.Object{ID: id} }

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
