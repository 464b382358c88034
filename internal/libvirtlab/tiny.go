package libvirtlab

import (
	"os"
	"path/filepath"
	"testing"
)

// ImageDir is where .ci/run builds the tiny machine of examples/libvirt/image-tiny.
const ImageDir = "/var/cache/clusterplan-test/tiny"

// Guest is what a tiny machine boots from.
type Guest struct{ Kernel, Initrd, Cmdline string }

// Tiny is a guest that asks for its address and answers SSH a few seconds after
// it was started. It skips the test where it was not built.
func Tiny(t *testing.T) Guest {
	t.Helper()
	g := Guest{Kernel: filepath.Join(ImageDir, "vmlinuz"), Initrd: filepath.Join(ImageDir, "initrd"), Cmdline: "console=ttyS0 quiet panic=-1 random.trust_bootloader=on cryptomgr.notests"}
	for _, file := range []string{g.Kernel, g.Initrd} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("no tiny machine: %v (examples/libvirt/image-tiny/build %s makes one, .ci/run does)", err, ImageDir)
		}
	}
	return g
}
