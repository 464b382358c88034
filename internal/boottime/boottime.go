// Package boottime reads this host's boot clock (CLOCK_BOOTTIME), which goes on
// in suspend and which no one sets. Leases are counted on it alone.
package boottime

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Now is the present moment on the boot clock.
func Now() spec.Instant {
	var ts unix.Timespec
	// It never waits, so that Go's scheduler need not hear of it. It fails only
	// for a clock that the kernel lacks; this one is there since Linux 2.6.39.
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("CLOCK_BOOTTIME: " + errno.Error())
	}
	return spec.Instant(ts.Nano())
}
