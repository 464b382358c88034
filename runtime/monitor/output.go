package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxLastLine bounds the line of output that goes with an exit, in bytes.
const maxLastLine = 500

// pump copies a program's output from its pipe to its log. It lives in the
// guardian: the program never outlives it. An error of the log (a full disk)
// loses output, and never stops the program.
type pump struct {
	file *os.File
	raw  syscall.RawConn
	log  *rotated // nil: none

	mu   sync.Mutex
	buf  [8192]byte
	tail []byte // of the output: the present line, and the last one that holds more than space
	last []byte
}

func newPump(fd int, log *rotated) (*pump, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	p := &pump{file: os.NewFile(uintptr(fd), "output"), log: log}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	p.raw = raw
	return p, nil
}

// run copies until nobody holds the other end.
func (p *pump) run() {
	_ = p.raw.Read(func(fd uintptr) bool { return p.drain(int(fd)) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.close()
}

// drain copies what is there. It reports whether the end has come.
func (p *pump) drain(fd int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		n, err := unix.Read(fd, p.buf[:])
		switch {
		case n > 0:
			p.note(p.buf[:n])
			p.log.write(p.buf[:n])
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false
		default:
			return true
		}
	}
}

// note keeps the last line.
func (p *pump) note(b []byte) {
	for {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		if room := maxLastLine - len(p.tail); room > 0 {
			p.tail = append(p.tail, line[:min(room, len(line))]...)
		}
		if !ended {
			return
		}
		if len(bytes.TrimSpace(p.tail)) > 0 {
			p.last = append(p.last[:0], p.tail...)
		}
		p.tail, b = p.tail[:0], rest
	}
}

// lastLine is the last line of output that holds more than space. It waits at
// most that long for what is still in the pipe (a disk may hang).
func (p *pump) lastLine(wait time.Duration) string {
	got := make(chan string, 1)
	go func() {
		// After the end, Control fails and there is nothing more.
		_ = p.raw.Control(func(fd uintptr) { p.drain(int(fd)) })
		p.mu.Lock()
		defer p.mu.Unlock()
		got <- p.line()
	}()
	select {
	case line := <-got:
		return line
	case <-time.After(wait):
		return ""
	}
}

// line is the last line that holds more than space.
func (p *pump) line() string {
	line := p.tail
	if len(bytes.TrimSpace(line)) == 0 {
		line = p.last
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(line), "?"))
}

// rotated is a log file that is rotated by size: name, name.1 (the newest
// of the old ones), name.2 and so on.
type rotated struct {
	name string
	max  int64 // bytes
	keep int   // old ones
	file *os.File
	size int64
}

func openRotated(name string, max int64, keep int) (*rotated, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	r := &rotated{name: name, max: max, keep: keep}
	return r, r.open()
}

func (r *rotated) open() error {
	f, err := os.OpenFile(r.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	r.file, r.size = f, st.Size()
	return nil
}

// write appends b, and rotates between two lines where it can. Output that
// can't be written is lost.
func (r *rotated) write(b []byte) {
	if r == nil {
		return
	}
	for len(b) > 0 {
		if r.file == nil && r.open() != nil {
			return
		}
		room := r.max - r.size
		if int64(len(b)) <= room {
			r.append(b)
			return
		}
		// What fits, to the end of its last line; a line longer than the file
		// is cut.
		cut := 0
		if room > 0 {
			cut = bytes.LastIndexByte(b[:room], '\n') + 1
			if cut == 0 && r.size == 0 {
				cut = int(room)
			}
		}
		r.append(b[:cut])
		b = b[cut:]
		r.rotate()
		if r.open() != nil || r.size >= r.max {
			return
		}
	}
}

func (r *rotated) append(b []byte) {
	if len(b) == 0 {
		return
	}
	n, _ := r.file.Write(b)
	r.size += int64(n)
}

func (r *rotated) rotate() {
	r.close()
	old := func(n int) string { return r.name + "." + strconv.Itoa(n) }
	if r.keep == 0 {
		_ = os.Remove(r.name)
		return
	}
	_ = os.Remove(old(r.keep))
	for n := r.keep - 1; n >= 1; n-- {
		_ = os.Rename(old(n), old(n+1))
	}
	if os.Rename(r.name, old(1)) != nil {
		// Never grow past the limit, whatever the directory is like.
		_ = os.Truncate(r.name, 0)
	}
}

func (r *rotated) close() {
	if r != nil && r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
