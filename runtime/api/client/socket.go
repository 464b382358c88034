package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is what a sockaddr_un holds, less the closing zero.
const maxSocketPath = 107

// DialSocket connects to a Unix socket whose path may be longer than the
// kernel's limit of 107 bytes: then by its directory's descriptor.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	path, done, err := ShortSocketPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// ShortSocketPath is path, or a name for the same file that fits into a socket
// address, good until done is called.
func ShortSocketPath(path string) (short string, done func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}
