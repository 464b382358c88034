package address

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// A killed process of which a thread hangs in a disk keeps its other descriptors,
// and its address is gone all the same.
func TestDiskHangs(t *testing.T) {
	lan := addresstest.New(t)
	host, vip := lan.Host(), families[0].vip
	disk, freeze, thaw := newDisk(t)
	p := startHolder(t, host)
	p.must(question{Do: "hold", Address: vip.String()})
	freeze()
	defer thaw()
	if err := p.in.Encode(question{Do: "write", Address: filepath.Join(disk, "x")}); err != nil {
		t.Fatal(err)
	}
	hangs := func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		for _, path := range threads {
			b, _ := os.ReadFile(path)
			if i := strings.LastIndexByte(string(b), ')'); i >= 0 && strings.HasPrefix(string(b[i:]), ") D") {
				return true
			}
		}
		return false
	}
	await(t, "a thread that hangs in the disk", hangs)
	p.signal(unix.SIGKILL)
	await(t, "the address gone", func() bool { return !host.Has(vip) })
	if !hangs() {
		t.Error("nothing hung: this test tests nothing")
	}
}

// newDisk mounts a file system of its own, which can be made to hang.
func newDisk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no disk of its own here: %s: %v %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error("umount: ", err)
		}
	})
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	frozen := false
	const fiFreeze, fiThaw = 0xc0045877, 0xc0045878
	freeze = func() {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d), fiFreeze, 0); errno != 0 {
			t.Fatal("freeze: ", errno)
		}
		frozen = true
	}
	thaw = func() {
		if frozen {
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(d), fiThaw, 0)
		}
		unix.Close(d)
	}
	return dir, freeze, thaw
}
