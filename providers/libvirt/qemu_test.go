package libvirt

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
		key := filepath.Join(lab.Dir, "key")
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
		p := configured(t, lab.URI, map[string]cty.Value{"pool_path": str("/var/lib/libvirt/pool"), "ssh_public_key_file": str(key + ".pub")})
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
		lan := w.apply(addr.TypeNetwork, "lab", labID, nil, network)
		w.settled(addr.TypeNetwork, "lab", lan, network)

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
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, "10.88.0.1:53")
		}}
		soon(t, "its network's DNS server knows its name", func() bool {
			got, err := resolver.LookupHost(t.Context(), "one")
			return err == nil && slices.Contains(got, "10.88.0.7")
		})

		// Turned off, and with other memory than the definition's.
		lab.Virsh("destroy", "one")
		lab.Virsh("setmaxmem", "one", "192M", "--config")
		lab.Virsh("setmem", "one", "192M", "--config")
		m = w.read(addr.TypeMachine, "one", oneID, m)
		if got := text(m.Value, "memory"); got != "192MiB" {
			t.Errorf("with other memory it is read with %s", got)
		}
		if len(m.Health) != 1 || m.Health[0] != healthOff {
			t.Fatalf("a machine that is off reads as %q", m.Health)
		}
		more := machine("one", map[string]cty.Value{"network": cty.NullVal(cty.String), "interface": nics, "memory": str("160MiB"), "vcpus": cty.NumberIntVal(2), "autostart": cty.True})
		// libvirtd is killed while it comes up, and is soon there again: the apply waits.
		back := make(chan struct{})
		w.hear = func(said string) {
			if said == "started" {
				w.hear = nil
				lab.StopDaemon()
				go func() {
					defer close(back)
					time.Sleep(time.Second)
					lab.StartDaemon()
				}()
			}
		}
		m = w.apply(addr.TypeMachine, "one", oneID, m, more)
		<-back
		w.settled(addr.TypeMachine, "one", m, more)
		if got := lab.Virsh("dominfo", "one"); !strings.Contains(got, "163840 KiB") || !strings.Contains(got, "running") || !regexp.MustCompile(`Autostart: +enable`).MatchString(got) {
			t.Fatalf("after the change: %s", got)
		}
		if console := read(t, text(m.Value, "console")); !strings.Contains(console, "tiny: starts on 2 processors") {
			t.Fatalf("its console says %q", console)
		}

		// A second network, and a third one on a bridge of the hypervisor's that is not
		// there yet: that is said, and the next apply goes on.
		beside := object(p, addr.TypeNetwork, "beside", map[string]cty.Value{"subnet": str("10.89.0.0/24")})
		side := w.apply(addr.TypeNetwork, "beside", "00000000000000e5", nil, beside)
		bridged := object(p, addr.TypeNetwork, "wire", map[string]cty.Value{"mode": str(NetworkBridge), "bridge": str("br0")})
		wire := w.apply(addr.TypeNetwork, "wire", "00000000000000e6", nil, bridged)
		w.settled(addr.TypeNetwork, "wire", w.read(addr.TypeNetwork, "wire", "00000000000000e6", wire), bridged)
		nic := func(network string) cty.Value {
			return cty.ObjectVal(map[string]cty.Value{"network": str(network), "address": cty.NullVal(cty.String), "mac": cty.NullVal(cty.String)})
		}
		two := machine("two", map[string]cty.Value{"accelerator": str(AcceleratorAuto), "network": cty.NullVal(cty.String),
			"interface": cty.ListVal([]cty.Value{nic("lab"), nic("beside"), nic("wire")})})
		if _, err := w.try(t.Context(), addr.TypeMachine, "two", twoID, nil, two); err == nil || !strings.Contains(err.Error(), "'br0'") || !strings.Contains(err.Error(), "make it there, or name another one") {
			t.Errorf("a bridge that is not there gives %v", err)
		}
		run(t, "ip", "link", "add", "br0", "type", "bridge")
		run(t, "ip", "link", "set", "br0", "up")

		// libvirtd is killed while the second one comes up, and the apply's context
		// ends after that: the next apply goes on with what is there.
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

		all := second.Value.GetAttr("addresses").AsValueSlice()
		if len(all) != 3 || all[1].AsString() != "10.89.0.2" || all[2].AsString() != "" {
			t.Errorf("its addresses are %#v", all)
		}
		soon(t, "it has its address on the second network", func() bool {
			return strings.Contains(lab.Virsh("net-dhcp-leases", "beside"), "10.89.0.2/24")
		})
		if got := run(t, "ip", "-br", "link", "show", "master", "br0"); !strings.Contains(got, "vnet") {
			t.Errorf("on the bridge there is %q", got)
		}

		// Out through the second network, by NAT: who is out there knows no way back to
		// it, and sees the hypervisor's address.
		outside := exec.Command("unshare", "-n", "sleep", "600")
		if err := outside.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = outside.Process.Kill(); _ = outside.Wait() }()
		pid := strconv.Itoa(outside.Process.Pid)
		soon(t, "there is an outside", func() bool {
			there, err := os.Readlink("/proc/" + pid + "/ns/net")
			here, _ := os.Readlink("/proc/self/ns/net")
			return err == nil && there != here
		})
		run(t, "ip", "link", "add", "out0", "type", "veth", "peer", "name", "far0", "netns", pid)
		run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "out0")
		run(t, "ip", "link", "set", "out0", "up")
		run(t, "nsenter", "-t", pid, "-n", "ip", "addr", "add", "192.0.2.2/24", "dev", "far0")
		run(t, "nsenter", "-t", pid, "-n", "ip", "link", "set", "far0", "up")
		soon(t, "it reaches an address outside", func() bool {
			return exec.Command("ssh", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "root@10.88.0.2",
				"ping -c 1 -W 5 192.0.2.2").Run() == nil
		})

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
		w.apply(addr.TypeNetwork, "lab", labID, lan, cty.NilVal)
		w.apply(addr.TypeNetwork, "beside", "00000000000000e5", side, cty.NilVal)
		w.apply(addr.TypeNetwork, "wire", "00000000000000e6", wire, cty.NilVal)
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

// soon waits for what comes by itself.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
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
