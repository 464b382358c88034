package lsp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// The longest message that is read. jrpc2's own framing makes room for whatever
// length a header claims.
const maxMessage = 64 << 20

// framing carries messages behind a header, as the protocol has it. Its
// messages are read by pump, which runs beside it: a read of standard input
// can't be broken off, and Close has to end Recv.
type framing struct {
	in   *bufio.Reader
	out  io.WriteCloser
	next chan received
	done chan struct{}
	once sync.Once
}

type received struct {
	msg []byte
	err error
}

func newFraming(in io.Reader, out io.WriteCloser) *framing {
	return &framing{in: bufio.NewReaderSize(in, 1<<16), out: out, next: make(chan received), done: make(chan struct{})}
}

// pump reads messages until one can't be read or the framing is closed. It may
// outlive the connection by one read.
func (f *framing) pump() {
	for {
		msg, err := f.read()
		select {
		case f.next <- received{msg, err}:
		case <-f.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// Recv is the next message.
func (f *framing) Recv() ([]byte, error) {
	select {
	case r := <-f.next:
		return r.msg, r.err
	case <-f.done:
		return nil, io.EOF
	}
}

func (f *framing) Send(msg []byte) error {
	frame := make([]byte, 0, len(msg)+32)
	frame = append(frame, "Content-Length: "...)
	frame = strconv.AppendInt(frame, int64(len(msg)), 10)
	frame = append(frame, "\r\n\r\n"...)
	_, err := f.out.Write(append(frame, msg...))
	return err
}

// read reads the next message. After an error where the next one begins is not
// known: the connection is over.
func (f *framing) read() ([]byte, error) {
	size := -1
	for first := true; ; first = false {
		raw, err := f.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, errors.New("a header line is too long: this is no language client")
		}
		if err != nil {
			if err == io.EOF && (!first || len(raw) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		line := strings.TrimRight(string(raw), "\r\n")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%.40q is no header of a message", line)
		}
		if strings.EqualFold(strings.TrimSpace(name), "Content-Length") {
			if size, err = strconv.Atoi(strings.TrimSpace(value)); err != nil || size < 0 || size > maxMessage {
				return nil, fmt.Errorf("a message of length %.40q: it has to be a number of bytes up to %d", strings.TrimSpace(value), maxMessage)
			}
		}
	}
	if size < 0 {
		return nil, errors.New("a message without Content-Length")
	}
	// Grown as it comes: a claimed length alone takes no memory.
	msg, err := io.ReadAll(io.LimitReader(f.in, int64(size)))
	if err == nil && len(msg) < size {
		err = io.ErrUnexpectedEOF
	}
	return msg, err
}

// Close ends Recv and closes what is written to.
func (f *framing) Close() (err error) {
	f.once.Do(func() {
		close(f.done)
		err = f.out.Close()
	})
	return err
}
