package agent

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process that holds a port of this host, as /proc tells it
// ("" when it can't be seen): for an error's words only.
func holder(network, addr string) string {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return ""
	}
	wanted := make(map[string]bool)
	for _, table := range []string{network, network + "6"} {
		for _, inode := range socketsAt(filepath.Join("/proc/net", table), port) {
			wanted["socket:["+inode+"]"] = true
		}
	}
	if len(wanted) == 0 {
		return ""
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // another user's
		}
		for _, fd := range fds {
			target, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil || !wanted[target] {
				continue
			}
			pid := filepath.Base(filepath.Dir(dir))
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(strings.ReplaceAll(string(name), "\x00", " ")))
		}
	}
	return ""
}

// socketsAt returns the inodes of sockets with a local port in one of /proc/net's tables:
// those that listen, and connections that were made from it, which hold it too.
func socketsAt(table string, port uint64) (inodes []string) {
	file, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer file.Close()
	suffix := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		const local, inode = 1, 9
		if len(f) > inode && strings.HasSuffix(f[local], suffix) {
			inodes = append(inodes, f[inode])
		}
	}
	return inodes
}
