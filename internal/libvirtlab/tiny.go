package libvirtlab

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// KernelDir is where .ci/run unpacks Debian's kernel for virtual machines
// (linux-image-cloud-amd64): boot/ and lib/modules/ lie in it.
const KernelDir = "/var/cache/clusterplan-test/kernel"

// Guest is what a tiny machine boots from.
type Guest struct{ Kernel, Initrd, Cmdline string }

// Tiny makes a guest of Debian's kernel, busybox and dropbear in dir: it asks for
// its address, answers SSH a few seconds after it was started, and says so on its
// console. It skips the test where there is nothing to make it of.
func Tiny(t *testing.T, dir string) Guest {
	t.Helper()
	kernels, _ := filepath.Glob(filepath.Join(KernelDir, "boot", "vmlinuz-*")) // the pattern is right
	if len(kernels) == 0 {
		t.Skipf("no kernel for machines in %s (.ci/run unpacks Debian's linux-image-cloud-amd64 there)", KernelDir)
	}
	kernel := kernels[len(kernels)-1]
	version := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	a := &archive{t: t}
	for _, program := range []string{"busybox", "dropbear", "dropbearkey"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skipf("%s is missing (Debian: busybox-static, dropbear-bin)", program)
		}
		a.program(path, "bin/"+program)
	}
	var modules []string
	for _, name := range []string{"virtio_pci", "virtio_net", "virtio_rng"} {
		modules = a.module(filepath.Join(KernelDir, "lib", "modules", version), name, modules)
	}
	var load strings.Builder
	for _, m := range modules {
		fmt.Fprintf(&load, "insmod /lib/%s.ko\n", m)
	}
	for _, d := range []string{"proc", "sys", "dev", "etc", "etc/dropbear", "root", "tmp", "run"} {
		a.add(d, 0o040755, nil)
	}
	a.add("etc/passwd", 0o100644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.add("lease", 0o100755, []byte("#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/${mask:-24} dev $interface\nexit 0\n"))
	a.add("init", 0o100755, []byte(`#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
echo "tiny: starts on $(nproc) processors"
grep -q stop=now /proc/cmdline && { echo "tiny: told to stop"; poweroff -f; }
`+load.String()+`grep -q hang=now /proc/cmdline && { echo "tiny: told to hang"; while :; do sleep 3600; done; }
ip link set lo up; ip link set eth0 up
dropbearkey -t ed25519 -f /etc/dropbear/key >/dev/null
udhcpc -s /lease -i eth0 -t 30 -T 1 -q >/dev/null
dropbear -E -r /etc/dropbear/key
echo "tiny: up"
while :; do sleep 3600; done
`))
	a.add("TRAILER!!!", 0, nil)
	g := Guest{Kernel: kernel, Initrd: filepath.Join(dir, "tiny.gz"), Cmdline: "console=ttyS0 quiet panic=-1 random.trust_bootloader=on"}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(a.b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.Initrd, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return g
}

// archive is a cpio archive, as kernels unpack it.
type archive struct {
	t    *testing.T
	b    bytes.Buffer
	dirs []string
	n    int
}

// add adds a file or directory, with the directories that it lies in.
func (a *archive) add(name string, mode uint32, data []byte) {
	if dir := filepath.Dir(name); dir != "." && !slices.Contains(a.dirs, dir) {
		a.add(dir, 0o040755, nil)
	}
	if mode&0o040000 != 0 {
		if slices.Contains(a.dirs, name) {
			return
		}
		a.dirs = append(a.dirs, name)
	}
	a.n++
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.n, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.b.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}

func (a *archive) file(path, name string) {
	a.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	a.add(name, 0o100755, data)
}

var library = regexp.MustCompile(`(/\S+) \(0x`)

// program adds a program and the libraries that it is linked to.
func (a *archive) program(path, name string) {
	a.t.Helper()
	a.file(path, name)
	out, err := exec.Command("ldd", path).Output()
	if err != nil { // a static one
		return
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		if at := strings.TrimPrefix(m[1], "/"); !slices.Contains(a.dirs, at) {
			a.dirs = append(a.dirs, at) // once
			a.file(m[1], at)
		}
	}
}

// module adds a module after those that it needs, unless it is in the kernel.
func (a *archive) module(dir, name string, loaded []string) []string {
	a.t.Helper()
	if slices.Contains(loaded, name) {
		return loaded
	}
	path := ""
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.ReplaceAll(d.Name(), "-", "_") == name+".ko" {
			path = p
			return fs.SkipAll
		}
		return err
	}); err != nil {
		a.t.Fatal(err)
	}
	if path == "" {
		return loaded
	}
	f, err := elf.Open(path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Section(".modinfo").Data()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, field := range strings.Split(string(info), "\x00") {
		if needs, ok := strings.CutPrefix(field, "depends="); ok && needs != "" {
			for _, n := range strings.Split(needs, ",") {
				loaded = a.module(dir, n, loaded)
			}
		}
	}
	a.file(path, "lib/"+name+".ko")
	return append(loaded, name)
}
