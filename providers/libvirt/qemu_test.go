package libvirt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

const (
	labID = "00000000000000e0"
	oneID = "00000000000000e1"
	twoID = "00000000000000e2"
)

// TestMachines takes real machines through their life, under emulation: made,
// found as planned, changed, turned off behind the provider's back, made again
// after a create that was cut off, while libvirtd is killed; and nothing is left.
func TestMachines(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		guest := libvirtlab.Tiny(t)
		p := configured(t, lab.URI, map[string]cty.Value{"pool_path": str("/var/lib/libvirt/pool")})
		p.silence = 3 * time.Second
		w := &world{t: t, p: p}
		network := object(p, addr.TypeNetwork, "lab", map[string]cty.Value{"subnet": str("10.88.0.0/24"), "subnet6": str("fd88::/64"), "mode": str(NetworkIsolated)})
		machine := func(name string, more map[string]cty.Value) cty.Value {
			set := map[string]cty.Value{"network": str("lab"), "kernel": str(guest.Kernel), "initrd": str(guest.Initrd), "cmdline": str(guest.Cmdline),
				"memory": str("128MiB"), "accelerator": str(AcceleratorTCG), "wait_timeout": str("2m")}
			for k, v := range more {
				set[k] = v
			}
			return object(p, addr.TypeMachine, name, set)
		}
		net := w.apply(addr.TypeNetwork, "lab", labID, nil, network)
		w.settled(addr.TypeNetwork, "lab", net, network)

		// Made, with an address that was known before.
		begun := time.Now()
		nics := cty.ListVal([]cty.Value{cty.ObjectVal(map[string]cty.Value{"network": str("lab"), "address": str("10.88.0.7"), "mac": cty.NullVal(cty.String)})})
		one := machine("one", map[string]cty.Value{"network": cty.NullVal(cty.String), "interface": nics})
		if got := w.plan(addr.TypeMachine, "one", nil, one).Planned.GetAttr("address"); !got.RawEquals(str("10.88.0.7")) {
			t.Fatalf("the plan does not know the address: %#v", got)
		}
		m := w.apply(addr.TypeMachine, "one", oneID, nil, one)
		t.Logf("from nothing to SSH: %v, of which its QEMU had a processor for %v", time.Since(begun).Round(100*time.Millisecond), processorTime(t, "one"))
		if !slices.Contains(w.said, "answers SSH at 10.88.0.7") {
			t.Fatalf("it was not waited for: %q", w.said)
		}
		if six := text(m.Value, "address6"); !strings.HasPrefix(six, "fd88::") || !slices.Contains(w.said, "answers SSH at "+six) {
			t.Fatalf("with IPv6 it is %q, and was waited for as %q", six, w.said)
		}
		m = w.read(addr.TypeMachine, "one", oneID, m)
		w.settled(addr.TypeMachine, "one", m, one)
		w.settled(addr.TypeMachine, "one", w.read(addr.TypeMachine, "one", oneID, nil), one)

		// Turned off, and with other memory than the definition's.
		lab.Virsh("destroy", "one")
		m = w.read(addr.TypeMachine, "one", oneID, m)
		if len(m.Health) != 1 || m.Health[0] != healthOff {
			t.Fatalf("a machine that is off reads as %q", m.Health)
		}
		more := machine("one", map[string]cty.Value{"network": cty.NullVal(cty.String), "interface": nics, "memory": str("160MiB"), "vcpus": cty.NumberIntVal(2)})
		m = w.apply(addr.TypeMachine, "one", oneID, m, more)
		w.settled(addr.TypeMachine, "one", m, more)
		if got := lab.Virsh("dominfo", "one"); !strings.Contains(got, "163840 KiB") || !strings.Contains(got, "running") {
			t.Fatalf("after the change: %s", got)
		}
		if console := read(t, text(m.Value, "console")); !strings.Contains(console, "tiny: starts on 2 processors") {
			t.Fatalf("its console says %q", console)
		}

		// libvirtd is killed while the second one comes up, and the apply's context
		// ends after that: the next apply goes on with what is there.
		two := machine("two", map[string]cty.Value{"accelerator": str(AcceleratorAuto)})
		ctx, cancel := context.WithCancel(t.Context())
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			for !strings.Contains(lab.Virsh("list", "--name"), "two") {
				time.Sleep(50 * time.Millisecond)
			}
			lab.StopDaemon()
			lab.StartDaemon()
			cancel()
		}()
		if _, err := w.try(ctx, addr.TypeMachine, "two", twoID, nil, two); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("an apply that was cancelled ends with %v", err)
		}
		<-killed
		half := w.read(addr.TypeMachine, "two", twoID, nil)
		if half == nil {
			t.Fatal("what the cut-off apply has made is not found by its id")
		}
		second := w.apply(addr.TypeMachine, "two", twoID, half, two)
		w.settled(addr.TypeMachine, "two", second, two)
		if got := lab.Virsh("dumpxml", "two"); p.kvmFailed() != strings.Contains(got, "<domain type='qemu'") {
			t.Fatalf("KVM has failed: %v, and it runs as %.80s", p.kvmFailed(), got)
		}
		if got := text(second.Value, "address"); got != "10.88.0.2" {
			t.Fatalf("it has the address %q", got)
		}

		// Others' names and addresses.
		for want, config := range map[string]cty.Value{
			`has a machine "one" already`:       machine("one", nil),
			"10.88.0.7 is one's on network lab": machine("three", map[string]cty.Value{"network": cty.NullVal(cty.String), "interface": nics}),
		} {
			_, err := w.try(t.Context(), addr.TypeMachine, "x", "00000000000000e3", nil, config)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			if err := p.deleteMachine(t.Context(), providers.ApplyRequest{ID: "00000000000000e3"}); err != nil {
				t.Error(err)
			}
		}
		_, err := w.try(t.Context(), addr.TypeNetwork, "y", "00000000000000e4", nil, object(p, addr.TypeNetwork, "y", map[string]cty.Value{"subnet": str("10.88.0.0/24")}))
		if err == nil || !strings.Contains(err.Error(), "subnet 10.88.0.0/24 is taken") {
			t.Errorf("a subnet that is taken gives %v", err)
		}

		w.apply(addr.TypeMachine, "one", oneID, m, cty.NilVal)
		w.apply(addr.TypeMachine, "two", twoID, second, cty.NilVal)
		w.apply(addr.TypeNetwork, "lab", labID, net, cty.NilVal)
		nothingLeft(t, lab, "/var/lib/libvirt/pool")
	})
}

// processorTime is what a machine's QEMU has used, which says more than the clock
// does on a machine that is busy.
func processorTime(t *testing.T, name string) time.Duration {
	t.Helper()
	pid := strings.TrimSpace(read(t, "/run/libvirt/qemu/"+name+".pid"))
	_, stat, _ := strings.Cut(read(t, "/proc/"+pid+"/stat"), ") ")
	fields := strings.Fields(stat)
	if len(fields) < 13 {
		t.Fatalf("/proc/%s/stat says %q", pid, stat)
	}
	var used time.Duration
	for _, ticks := range fields[11:13] { // user and system, in hundredths
		n, err := strconv.Atoi(ticks)
		if err != nil {
			t.Fatal(err)
		}
		used += time.Duration(n) * 10 * time.Millisecond
	}
	return used
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nothingLeft wants a hypervisor as it was before.
func nothingLeft(t *testing.T, lab *libvirtlab.Lab, pool string) {
	t.Helper()
	for _, args := range [][]string{{"list", "--all", "--name"}, {"net-list", "--all", "--name"}, {"pool-list", "--all", "--name"}} {
		if got := lab.Virsh(args...); got != "" {
			t.Errorf("virsh %s still has %q", strings.Join(args, " "), got)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(pool, "*")); len(files) > 0 {
		t.Errorf("files are left: %q", files)
	}
	if _, err := os.Stat(pool); err == nil {
		t.Errorf("the pool's directory is left")
	}
}
