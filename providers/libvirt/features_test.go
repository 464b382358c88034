package libvirt

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// TestDisks: what others do to the disks of machines and to volumes is seen and
// mended, or makes them anew; what they made is taken over; doctor says what is
// wanting; and two runs that meet at an image leave it where it is needed.
func TestDisks(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		pool := filepath.Join(lab.Dir, "pool")
		set := map[string]cty.Value{"pool_path": str(pool)}
		p := configured(t, lab.URI, set)
		p.keys = []string{"ssh-ed25519 AAAA me"}
		w := &world{t: t, p: p}
		image := filepath.Join(lab.Dir, "disk.qcow2")
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "32M")
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(read(t, image))))

		t.Run("doctor", func(t *testing.T) { examines(t, lab, p, image) })

		volume := object(p, addr.TypeVolume, "data", map[string]cty.Value{"size": str("8MiB")})
		v := w.apply(addr.TypeVolume, "data", "0d", nil, volume)
		machine := object(p, addr.TypeMachine, "m", map[string]cty.Value{"image": str(image), "image_digest": str(digest), "volumes": cty.ListVal([]cty.Value{str("data")}),
			"accelerator": str(AcceleratorTCG), "wait_for": str(WaitNone), "memory": str("64MiB")})
		m := w.apply(addr.TypeMachine, "m", "0a", nil, machine)
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "0a", m), machine)

		// Disks that are taken off come back, in one update that reboots.
		lab.Virsh("destroy", "m")
		lab.Virsh("detach-disk", "m", "vda", "--config")
		lab.Virsh("detach-disk", "m", "vdb", "--config")
		m = w.read(addr.TypeMachine, "m", "0a", m)
		if want := []string{healthOff, healthDiskDetached, "volume data is detached"}; !slices.Equal(m.Health, want) {
			t.Fatalf("it reads as %q, not %q", m.Health, want)
		}
		if plan := w.plan(addr.TypeMachine, "m", m, machine); plan.Impact != "reboot" || len(plan.Replace) > 0 {
			t.Fatalf("the plan is %+v", plan)
		}
		m = w.apply(addr.TypeMachine, "m", "0a", m, machine)
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "0a", m), machine)
		if got := lab.Virsh("domblklist", "m"); !strings.Contains(got, "m.0a.disk.qcow2") || !strings.Contains(got, "data.0d.volume.qcow2") {
			t.Fatalf("it has the disks %s", got)
		}

		// A volume that somebody has grown is told; one that is deleted is made again,
		// and the machine told of it; a machine without its own disk is made anew.
		lab.Virsh("destroy", "m")
		lab.Virsh("vol-resize", "--pool", "clusterplan", "data.0d.volume.qcow2", "16M")
		v = w.read(addr.TypeVolume, "data", "0d", v)
		if _, err := p.Plan(providers.PlanRequest{Type: addr.TypeVolume, Prior: v, Config: volume}); err == nil || !strings.Contains(err.Error(), `write size = "16MiB"`) {
			t.Errorf("a volume that was grown gives %v", err)
		}
		lab.Virsh("vol-delete", "--pool", "clusterplan", "data.0d.volume.qcow2")
		if o := w.read(addr.TypeVolume, "data", "0d", v); o != nil {
			t.Errorf("a volume that is gone is read as %+v", o)
		}
		m = w.read(addr.TypeMachine, "m", "0a", m)
		if !slices.Contains(m.Health, "volume data is gone") {
			t.Errorf("without its volume it reads as %q", m.Health)
		}
		v = w.apply(addr.TypeVolume, "data", "0d", nil, volume)
		m = w.apply(addr.TypeMachine, "m", "0a", m, machine)
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "0a", m), machine)
		other := object(p, addr.TypeMachine, "m", map[string]cty.Value{"image": str(image), "image_digest": str("sha256:" + strings.Repeat("0", 64)), "volumes": cty.ListVal([]cty.Value{str("data")}),
			"accelerator": str(AcceleratorTCG), "wait_for": str(WaitNone), "memory": str("64MiB")})
		if plan := w.plan(addr.TypeMachine, "m", m, other); len(plan.Replace) != 1 {
			t.Errorf("another image is %+v", plan)
		}
		// A disk that somebody has added is told of, and no more: nothing is to be done.
		theirs := filepath.Join(pool, "theirs.img")
		if err := os.WriteFile(theirs, []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
		dumped := lab.Virsh("dumpxml", "--inactive", "m")
		lab.Virsh("attach-disk", "m", theirs, "vdf", "--config")
		m = w.read(addr.TypeMachine, "m", "0a", m)
		if want := []string{"has a disk of others: vdf (" + theirs + ")"}; !slices.Equal(m.Health, want) {
			t.Errorf("with a disk of others it reads as %q", m.Health)
		}
		if plan := w.plan(addr.TypeMachine, "m", m, machine); len(plan.Phases)+len(plan.Replace) > 0 || !slices.Equal(plan.Drift, m.Health) {
			t.Errorf("with a disk of others the plan is %+v", plan)
		}

		// Its own disk and its definition go after a plan to start it: that is no plan to
		// begin anew.
		lab.Virsh("destroy", "m")
		m = w.read(addr.TypeMachine, "m", "0a", m)
		lab.Virsh("undefine", "m")
		if err := os.Rename(filepath.Join(pool, "m.0a.disk.qcow2"), filepath.Join(lab.Dir, "kept")); err != nil {
			t.Fatal(err)
		}
		lab.Virsh("pool-refresh", "clusterplan")
		for _, defined := range []bool{false, true} {
			if defined {
				define(t, lab, dumped)
			}
			if _, err := w.try(t.Context(), addr.TypeMachine, "m", "0a", m, machine); err == nil || !strings.Contains(err.Error(), "machine m had its disk when the plan was made, and that is gone from pool clusterplan") || !strings.Contains(err.Error(), "plan again to have the machine made anew") {
				t.Errorf("a disk that went after the plan (machine defined: %v) gives %v", defined, err)
			}
		}
		if err := os.Rename(filepath.Join(lab.Dir, "kept"), filepath.Join(pool, "m.0a.disk.qcow2")); err != nil {
			t.Fatal(err)
		}
		lab.Virsh("pool-refresh", "clusterplan")
		m = w.apply(addr.TypeMachine, "m", "0a", m, machine)
		lab.Virsh("destroy", "m")
		if err := os.Remove(filepath.Join(pool, "m.0a.disk.qcow2")); err != nil {
			t.Fatal(err)
		}
		m = w.read(addr.TypeMachine, "m", "0a", m)
		if plan := w.plan(addr.TypeMachine, "m", m, machine); !slices.Contains(m.Health, healthDiskGone) || len(plan.Replace) != 1 || plan.Planned.GetAttr("uuid").IsKnown() {
			t.Errorf("without its disk it reads as %q, and the plan is %+v", m.Health, plan)
		}
		lab.Virsh("undefine", "m") // and with its definition: an update would begin on an empty one
		if o := w.read(addr.TypeMachine, "m", "0a", m); o == nil || !slices.Equal(o.Health, []string{healthDiskGone}) || len(w.plan(addr.TypeMachine, "m", o, machine).Replace) != 1 {
			t.Errorf("without disk and definition it reads as %+v", o)
		}
		w.apply(addr.TypeMachine, "m", "0a", m, cty.NilVal)
		if read(t, theirs) != "theirs" {
			t.Error("a disk of others went with the machine")
		}
		lab.Virsh("vol-delete", "--pool", "clusterplan", "theirs.img")

		t.Run("import", func(t *testing.T) { imports(t, lab, w) })
		t.Run("image that goes", func(t *testing.T) { meet(t, lab, w, set, image) })

		w.apply(addr.TypeVolume, "data", "0d", v, cty.NilVal)
		nothingLeft(t, lab, pool)
	})
}

// examines: what is wanting is said before anything is made.
func examines(t *testing.T, lab *libvirtlab.Lab, p *Provider, image string) {
	lab.Virsh("net-define", xmlFile(t, lab, `<network><name>theirs</name><ip address="10.90.0.1" prefix="24"/></network>`))
	defer lab.Virsh("net-undefine", "theirs")
	define(t, lab, `<domain type="qemu"><name>m</name><memory unit="MiB">64</memory><os><type>hvm</type></os></domain>`)
	defer lab.Virsh("undefine", "m")
	examine := func(p *Provider, subnet, file string) map[string]string {
		got := map[string]string{}
		for _, f := range p.Examine(t.Context(), providers.Examination{Objects: []providers.Examinee{
			{Addr: at(addr.TypeNetwork, "lab"), Config: object(p, addr.TypeNetwork, "lab", map[string]cty.Value{"subnet": str(subnet)})},
			{Addr: at(addr.TypeVolume, "far"), Config: object(p, addr.TypeVolume, "far", map[string]cty.Value{"size": str("1GiB"), "pool": str("fast")})},
			{Addr: at(addr.TypeMachine, "m"), Config: object(p, addr.TypeMachine, "m", map[string]cty.Value{"image": str(file)})},
		}}) {
			got[f.Check] += f.Level + ": " + f.Found + " | " + f.Advice + "\n"
		}
		return got
	}
	wants := func(got map[string]string, all map[string]string) {
		t.Helper()
		for check, want := range all {
			if !strings.Contains(got[check], want) {
				t.Errorf("%s is %q, want %q", check, got[check], want)
			}
		}
	}
	wants(examine(p, "10.90.0.0/16", "none.qcow2"), map[string]string{
		"libvirtd": "ok: libvirt ", "QEMU": "ok: QEMU ", "subnet": "fail: 10.90.0.0/16 is taken: network theirs has 10.90.0.0/24", "image": "fail: ",
		"name": "fail: qemu:///system has a machine \"m\" already", "pool": "fail: qemu:///system has no storage pool \"fast\"", "dnsmasq": "ok", "iptables": "ok"})
	got := examine(p, "127.0.0.0/24", image)
	wants(got, map[string]string{"subnet": "is taken: interface lo", "image": "ok", "pool": "ok: clusterplan will be made in " + p.poolPath + ": "})
	if len(got["KVM"]) == 0 {
		t.Error("nothing is said of KVM")
	}
	away := configured(t, "qemu:///system?socket=/run/none", nil)
	wants(examine(away, "10.1.0.0/24", image), map[string]string{"connection": "fail: look at the hypervisor: ", "image": "ok"})
	if left := lab.Virsh("pool-list", "--all", "--name"); left != "" {
		t.Errorf("looking has made the pool %s", left)
	}
}

func xmlFile(t *testing.T, lab *libvirtlab.Lab, text string) string {
	t.Helper()
	file := filepath.Join(lab.Dir, "object.xml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// imports takes over what others made, on QEMU: it is as its definition says, changes
// in place, and goes with a destroy.
func imports(t *testing.T, lab *libvirtlab.Lab, w *world) {
	p := w.p
	lab.Virsh("net-define", xmlFile(t, lab, `<network><name>old</name><ip address="10.91.0.1" netmask="255.255.255.0"><dhcp><range start="10.91.0.100" end="10.91.0.200"/></dhcp></ip><ip family="ipv6" address="fd91::1" prefix="64"/></network>`))
	lab.Virsh("vol-create-as", "clusterplan", "theirs", "4M", "--format", "qcow2")
	define(t, lab, `<domain type="qemu"><name>old</name><memory unit="MiB">64</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices><interface type="network"><source network="old"/></interface></devices></domain>`)
	find := func(typ, name, id string, set map[string]cty.Value) (*providers.Object, cty.Value) {
		t.Helper()
		config := object(p, typ, name, set)
		found, err := p.Import(t.Context(), providers.ImportRequest{Addr: at(typ, name), Type: typ, ID: id, Config: config})
		if err != nil || found.ManagedBy != "" {
			t.Fatalf("import of %s %s gives %+v, %v", typ, id, found, err)
		}
		return found.Object, config
	}
	net, config := find(addr.TypeNetwork, "old", "old", map[string]cty.Value{"mode": str(NetworkIsolated), "subnet": str("10.91.0.0/24"), "subnet6": str("fd91::/64"), "autostart": cty.False})
	net = w.apply(addr.TypeNetwork, "old", net.ID, net, config) // it is down
	w.settled(addr.TypeNetwork, "old", net, config)
	if text(net.Value, "gateway6") != "fd91::1" {
		t.Errorf("it is %#v", net.Value)
	}
	vol, config := find(addr.TypeVolume, "theirs", "clusterplan/theirs", map[string]cty.Value{"pool": str("clusterplan"), "size": str("8MiB")})
	vol = w.apply(addr.TypeVolume, "theirs", vol.ID, vol, config)
	w.settled(addr.TypeVolume, "theirs", vol, config)
	machine, config := find(addr.TypeMachine, "old", "old", map[string]cty.Value{"memory": str("96MiB"), "network": str("old"), "kernel": str("vmlinuz"), "accelerator": str(AcceleratorTCG), "wait_for": str(WaitNone)})
	machine = w.apply(addr.TypeMachine, "old", machine.ID, machine, config)
	w.settled(addr.TypeMachine, "old", w.read(addr.TypeMachine, "old", machine.ID, machine), config)
	if six, err := netip.ParseAddr(text(machine.Value, "address6")); err != nil || !netip.MustParsePrefix("fd91::/64").Contains(six) || text(machine.Value, "address") == "" {
		t.Errorf("it has the addresses %#v", machine.Value)
	}
	w.apply(addr.TypeMachine, "old", machine.ID, machine, cty.NilVal)
	w.apply(addr.TypeVolume, "theirs", vol.ID, vol, cty.NilVal)
	w.apply(addr.TypeNetwork, "old", net.ID, net, cty.NilVal)
}

// meet: one run removes an image that nothing needs, another one is about to use it.
func meet(t *testing.T, lab *libvirtlab.Lab, w *world, set map[string]cty.Value, image string) {
	q := configured(t, lab.URI, set)
	q.stall = 100 * time.Millisecond
	other := &world{t: t, p: q}
	stands := func(id string) {
		t.Helper()
		file := filepath.Join(w.p.poolPath, id+"."+id+".volume.qcow2")
		if got := run(t, "qemu-img", "check", "-U", file); !strings.Contains(got, "No errors") {
			t.Errorf("%s: %s", file, got)
		}
		if left, _ := filepath.Glob(filepath.Join(w.p.poolPath, "*"+markSuffix)); len(left) > 0 {
			t.Errorf("marks are left: %q", left)
		}
	}
	volume := func(name string) cty.Value {
		return object(q, addr.TypeVolume, name, map[string]cty.Value{"image": str(image)})
	}
	one := w.apply(addr.TypeVolume, "f1", "f1", nil, volume("f1"))

	// The other one's volume stands on it by the time that it is looked at again.
	done := make(chan *providers.Object)
	w.p.marked = func() {
		w.p.marked = nil
		go func() { done <- other.apply(addr.TypeVolume, "f2", "f2", nil, volume("f2")) }()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(w.p.poolPath, "f2.f2.volume.qcow2")); err == nil {
				return
			} else if time.Now().After(end) {
				t.Error("the other run waits before it has said what it uses")
				return
			}
		}
	}
	w.apply(addr.TypeVolume, "f1", "f1", one, cty.NilVal)
	two := <-done
	stands("f2")

	// It was looked at for the last time before that: it goes, and the other one brings it back.
	base := filepath.Join(w.p.poolPath, imagePrefix+fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, image)))))
	lab.Virsh("vol-create-as", "clusterplan", filepath.Base(base)+markSuffix, "0", "--format", "raw")
	go func() { done <- other.apply(addr.TypeVolume, "f3", "f3", nil, volume("f3")) }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(w.p.poolPath, "f3.f3.volume.qcow2")); err == nil || time.Now().After(end) {
			break
		}
	}
	lab.Virsh("vol-delete", "--pool", "clusterplan", filepath.Base(base)) // its maker ends before it takes the mark away
	three := <-done
	stands("f3")
	w.apply(addr.TypeVolume, "f2", "f2", two, cty.NilVal)

	// Two runs remove it at once, and the first of them has done so by the time that a third
	// one wants it: that waits for the second one as well, which has looked before.
	last := configured(t, lab.URI, set)
	var four *providers.Object
	w.p.looked = func() {
		w.p.looked = nil
		q.tidy(t.Context())
		if left, _ := filepath.Glob(base); len(left) > 0 {
			t.Errorf("what nothing needs is left: %q", left)
		}
		go func() {
			done <- (&world{t: t, p: last}).apply(addr.TypeVolume, "f4", "f4", nil, volume("f4"))
		}()
		select {
		case four = <-done:
			t.Error("it takes an image that another run is about to remove")
		case <-time.After(2 * time.Second): // in which it is long done, or waits
		}
	}
	w.apply(addr.TypeVolume, "f3", "f3", three, cty.NilVal)
	if four == nil {
		four = <-done
	}
	stands("f4")

	// One that removes it takes so long to look that others take it for dead, and its mark
	// away: it finds that, and leaves the image.
	var six *providers.Object
	w.p.looked = func() {
		w.p.looked = nil
		six = other.apply(addr.TypeVolume, "f6", "f6", nil, volume("f6"))
	}
	w.apply(addr.TypeVolume, "f4", "f4", four, cty.NilVal)
	stands("f6")
	other.apply(addr.TypeVolume, "f6", "f6", six, cty.NilVal)
	four = w.apply(addr.TypeVolume, "f4", "f4", nil, volume("f4"))

	// While one is uploaded nothing stands on it, and it stays.
	upload := []string{"--pool", "clusterplan", "f5.f5." + uploadFile}
	lab.Virsh("vol-create-as", "clusterplan", upload[2], "0", "--format", "raw")
	w.apply(addr.TypeVolume, "f4", "f4", four, cty.NilVal)
	if left, _ := filepath.Glob(base + "*"); len(left) != 1 {
		t.Errorf("another run uploads, and of the images there are %q", left)
	}
	lab.Virsh(append([]string{"vol-delete"}, upload...)...)
	q.tidy(t.Context())
	if left, _ := filepath.Glob(base + "*"); len(left) > 0 {
		t.Errorf("what nothing needs is left: %q", left)
	}
}
