package libvirt

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
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

		w.apply(addr.TypeMachine, "m", "0b", m, cty.NilVal)
		w.apply(addr.TypeVolume, "a", "0a", a, cty.NilVal)
		w.apply(addr.TypeNetwork, "lab", "0e", net, cty.NilVal)
		run(t, "virsh", "-q", "pool-destroy", "small")
		run(t, "virsh", "-q", "pool-undefine", "small")
		nothingLeft(t, lab, pool)
	})
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
