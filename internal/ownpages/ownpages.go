// Package ownpages lets go of, and keeps, what a process has in memory of its
// program's file.
package ownpages

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Drop lets go of the program's pages that are in this process's memory. One
// program is all of clusterplan: the start of every package in it touches more than
// most of its processes use later, and the kernel maps 16 pages around each. They
// stay in the kernel's cache, and what is used is mapped again at its next use.
func Drop() {
	_ = each(func(m mapping) error {
		if !m.written { // that has no other copy
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
		}
		return nil
	})
}

// Lock keeps the program's pages in memory once they were used, so that a short
// moment's work never waits for a disk. Pages that were not used take no memory.
// Go's heap is not locked: giving memory back is refused for locked pages, and
// without swap none of it is taken away. It needs CAP_IPC_LOCK, or a
// RLIMIT_MEMLOCK above the program's size.
func Lock() error {
	return each(func(m mapping) error {
		if _, _, errno := unix.RawSyscall(unix.SYS_MLOCK2, m.from, m.to-m.from, unix.MLOCK_ONFAULT); errno != 0 {
			return fmt.Errorf("lock the program's pages: %w", errno)
		}
		return nil
	})
}

// mapping is a part of the program's file in memory.
type mapping struct {
	from, to uintptr
	written  bool // since it was mapped, or it may be
}

func each(do func(mapping) error) error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer smaps.Close()
	all, err := mappings(smaps, self)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := do(m); err != nil {
			return err
		}
	}
	return nil
}

// mappings are those of a file.
func mappings(smaps io.Reader, file string) ([]mapping, error) {
	var out []mapping
	in := bufio.NewScanner(smaps)
	own := false
	for in.Scan() {
		name, rest, _ := strings.Cut(in.Text(), " ")
		if name == "Anonymous:" && own {
			// What can't be written now may have been when the program was loaded.
			last := &out[len(out)-1]
			last.written = last.written || strings.TrimSpace(rest) != "0 kB"
		}
		if strings.HasSuffix(name, ":") {
			continue
		}
		// from-to perms offset device inode path
		f := strings.Fields(rest)
		if own = len(f) > 4 && strings.Join(f[4:], " ") == file; !own {
			continue
		}
		from, to, _ := strings.Cut(name, "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if own = err1 == nil && err2 == nil && a < b; own {
			out = append(out, mapping{uintptr(a), uintptr(b), strings.Contains(f[0], "w")})
		}
	}
	return out, in.Err()
}
