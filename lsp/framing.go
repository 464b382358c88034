package lsp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/creachadair/jrpc2"
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

	sending sync.Mutex
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

// Recv is the next message that has the form of one. Others are answered here:
// jrpc2 fails where it is to tell of one, and the connection is gone meanwhile.
func (f *framing) Recv() ([]byte, error) {
	for {
		select {
		case r := <-f.next:
			code, why := malformed(r.msg)
			if r.err != nil || code == 0 {
				return r.msg, r.err
			}
			answer, err := json.Marshal(object{"jsonrpc": "2.0", "id": nil, "error": object{"code": code, "message": why}})
			if err == nil {
				err = f.Send(answer)
			}
			if err != nil {
				return nil, err
			}
		case <-f.done:
			return nil, io.EOF
		}
	}
}

// malformed says what is wrong with a message that has no id by which its sender
// could be told; 0: nothing.
func malformed(msg []byte) (code jrpc2.Code, why string) {
	if !json.Valid(msg) {
		return jrpc2.ParseError, "the message is no JSON"
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(msg, &m) != nil || m == nil {
		return jrpc2.InvalidRequest, "a message is one object"
	}
	var id any
	if json.Unmarshal(m["id"], &id) == nil {
		switch id.(type) {
		case string, float64:
			return 0, ""
		}
	}
	var method, version string
	var params any
	if json.Unmarshal(m["jsonrpc"], &version) != nil || version != "2.0" {
		return jrpc2.InvalidRequest, `a message has "jsonrpc": "2.0"`
	}
	if json.Unmarshal(m["method"], &method) != nil || method == "" {
		return jrpc2.InvalidRequest, "a message without an id is a notification, and has a method"
	}
	if raw, ok := m["params"]; ok && json.Unmarshal(raw, &params) == nil {
		switch params.(type) {
		case nil, map[string]any, []any:
		default:
			return jrpc2.InvalidRequest, "params is an object or a list"
		}
	}
	for name := range m {
		switch name {
		case "jsonrpc", "method", "params", "id":
		default:
			return jrpc2.InvalidRequest, fmt.Sprintf("a notification has no %.40q", name)
		}
	}
	return 0, ""
}

func (f *framing) Send(msg []byte) error {
	frame := make([]byte, 0, len(msg)+32)
	frame = append(frame, "Content-Length: "...)
	frame = strconv.AppendInt(frame, int64(len(msg)), 10)
	frame = append(frame, "\r\n\r\n"...)
	f.sending.Lock()
	defer f.sending.Unlock()
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
