package libvirt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// TestFirmware: a hypervisor without UEFI firmware, or without QEMU at all, says
// what to install before anything is made; with both a machine boots by UEFI, its
// kernel directly, and what the firmware remembers goes with it.
func TestFirmware(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		guest := libvirtlab.Tiny(t)
		const pool, id = "/var/lib/libvirt/pool", "00000000000000f1"
		p := configured(t, lab.URI, map[string]cty.Value{"pool_path": str(pool)})
		w := &world{t: t, p: p}
		machine := object(p, addr.TypeMachine, "m", map[string]cty.Value{"firmware": str(FirmwareUEFI), "network": str("lab"), "kernel": str(guest.Kernel), "initrd": str(guest.Initrd),
			"cmdline": str(guest.Cmdline), "memory": str("256MiB"), "accelerator": str(AcceleratorTCG), "wait_for": str(WaitAddress), "wait_timeout": str("4m")})

		// without takes a file or directory of this machine's away from the lab's libvirtd.
		without := func(path, want string) {
			t.Helper()
			if err := place(lab.Dir, path); err != nil {
				t.Fatal(err)
			}
			lab.StopDaemon()
			lab.StartDaemon()
			_, err := w.try(t.Context(), addr.TypeMachine, "m", id, nil, machine)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("without %s: %v, want %q", path, err, want)
			}
			nothingLeft(t, lab, pool)
			if err := syscall.Unmount(path, 0); err != nil {
				t.Fatal(err)
			}
		}
		without("/usr/share/qemu/firmware", "has no UEFI firmware for machines: install it there (Debian: ovmf)")
		without("/usr/bin/qemu-system-x86_64", "install QEMU for its processors there (Debian: qemu-system-x86)")
		lab.StopDaemon()
		lab.StartDaemon()
		if _, err := os.Stat("/usr/share/OVMF"); errors.Is(err, os.ErrNotExist) {
			t.Skip("no firmware to boot by (Debian: ovmf)")
		}
		network := object(p, addr.TypeNetwork, "lab", map[string]cty.Value{"subnet": str("10.88.0.0/24"), "mode": str(NetworkIsolated)})
		net := w.apply(addr.TypeNetwork, "lab", labID, nil, network)
		begun := time.Now()
		m := w.apply(addr.TypeMachine, "m", id, nil, machine)
		t.Logf("a machine has booted by UEFI after %v", time.Since(begun).Round(time.Millisecond))
		w.settled(addr.TypeMachine, "m", m, machine)
		const memory = "/var/lib/libvirt/qemu/nvram/*"
		if left, _ := filepath.Glob(memory); len(left) != 1 {
			t.Errorf("its firmware remembers in %q", left)
		}
		w.apply(addr.TypeMachine, "m", id, m, cty.NilVal)
		w.apply(addr.TypeNetwork, "lab", labID, net, cty.NilVal)
		nothingLeft(t, lab, pool)
		if left, _ := filepath.Glob(memory); len(left) > 0 {
			t.Errorf("what its firmware remembers is left: %q", left)
		}
	})
}

// place puts something empty over a file or directory.
func place(dir, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		info, err = nil, os.MkdirAll(path, 0o755)
	}
	if err != nil {
		return err
	}
	if info == nil || info.IsDir() {
		return syscall.Mount("tmpfs", path, "tmpfs", 0, "")
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		return err
	}
	return syscall.Mount(empty, path, "", syscall.MS_BIND, "")
}
