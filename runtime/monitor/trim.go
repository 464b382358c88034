package monitor

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim gives back the memory that this process needed to start and won't need
// again: garbage, and the mappings of its program's pages. One program is all
// of clusterplan, and the start of every package in it touches some 13 MiB of
// which a guardian uses 2. The pages stay in the kernel's cache, and what is
// used is mapped again at its next use.
func Trim() {
	debug.FreeOSMemory()
	spans, err := ownPages()
	if err != nil {
		return
	}
	for _, s := range spans {
		if !s.written { // those have no other copy
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED)
		}
	}
}

// Lock keeps the program's pages in memory once they were used, so that a short
// moment's work never waits for a disk. Pages that were not used take no memory.
// Go's heap is not locked: giving memory back is refused for locked pages, and
// without swap none of it is taken away. It needs CAP_IPC_LOCK, or a
// RLIMIT_MEMLOCK above the program's size.
func Lock() error {
	spans, err := ownPages()
	if err != nil {
		return err
	}
	for _, s := range spans {
		if _, _, errno := unix.RawSyscall(unix.SYS_MLOCK2, s.from, s.to-s.from, unix.MLOCK_ONFAULT); errno != 0 {
			return fmt.Errorf("lock the program's pages: %w", errno)
		}
	}
	return nil
}

// pages are a mapping of this process's program.
type pages struct {
	from, to uintptr
	written  bool // or may be
}

func ownPages() ([]pages, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	var spans []pages
	in := bufio.NewScanner(maps)
	for in.Scan() {
		// from-to perms offset device inode path
		f := strings.Fields(in.Text())
		if len(f) < 6 || strings.Join(f[5:], " ") != self {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && a < b {
			spans = append(spans, pages{uintptr(a), uintptr(b), strings.Contains(f[1], "w")})
		}
	}
	return spans, in.Err()
}
