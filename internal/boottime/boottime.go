// Package boottime reads this host's boot clock (CLOCK_BOOTTIME), which goes on
// in suspend and which no one sets. Leases are counted on it alone.
package boottime

import (
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Now is the present moment on the boot clock.
func Now() spec.Instant {
	var ts unix.Timespec
	// It fails only for a clock that the kernel lacks; this one is there
	// since Linux 2.6.39.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return spec.Instant(ts.Nano())
}
