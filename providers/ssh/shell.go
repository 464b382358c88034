package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/clusterplan/clusterplan/internal/sshconn"
)

// shell is a `sh` on a host that runs one script after the other: a session of
// its own for each would cost more than most of them do.
type shell struct {
	conn *sshconn.Conn

	turn chan struct{} // holds who has it

	mu   sync.Mutex
	now  *interpreter   // nil: none runs
	runs sync.WaitGroup // all, also those let go of: their end needs the connection
}

// interpreter is one running `sh`.
type interpreter struct {
	in     *io.PipeWriter
	out    *output
	cancel context.CancelFunc
	ended  chan struct{} // closed when it is over
	err    error         // why, once it is
}

func newShell(conn *sshconn.Conn) *shell { return &shell{conn: conn, turn: make(chan struct{}, 1)} }

// scriptError is a script that failed.
type scriptError struct {
	text string // of its standard error
	code int
}

func (e *scriptError) Error() string {
	if e.text != "" {
		return e.text
	}
	return "the script ended with exit code " + strconv.Itoa(e.code)
}

// open starts one, unless one runs.
func (s *shell) open() *interpreter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		select {
		case <-s.now.ended: // the connection was lost while nobody asked
		default:
			return s.now
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	in, w := io.Pipe()
	i := &interpreter{in: w, out: newOutput(), cancel: cancel, ended: make(chan struct{})}
	s.runs.Go(func() {
		defer close(i.ended)
		defer cancel()
		r, err := s.conn.Run(ctx, sshconn.Command{Argv: []string{"sh"}, Stdin: in, Stdout: i.out})
		if err == nil {
			err = fmt.Errorf("%s: sh ended with exit code %d: %s", s.conn, r.Code, bytes.TrimSpace(r.Stderr))
		}
		in.CloseWithError(err)
		i.err = err
	})
	s.now = i
	return i
}

// drop lets go of one that can't be used any more.
func (s *shell) drop(i *interpreter) {
	i.cancel()
	i.in.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == i {
		s.now = nil
	}
}

// close ends the one that runs, and waits for its end and for that of those whose
// callers have left: what they ran would go on there.
func (s *shell) close() {
	s.mu.Lock()
	i := s.now
	s.now = nil
	s.mu.Unlock()
	if i != nil {
		i.in.Close()
	}
	s.runs.Wait()
}

// run runs a script in a subshell and gives its output. Its commands have no
// input. A *scriptError: it failed.
func (s *shell) run(ctx context.Context, script string) ([]byte, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var random [12]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	mark := "clusterplan-" + hex.EncodeToString(random[:])
	i := s.open()
	i.out.expect("\n" + mark + ".\n")
	// What the script prints goes to descriptor 3, which is the session's; what it
	// says on standard error comes after it, between marks. What it leaves running
	// has neither.
	text := "exec 3>&1\ne=$( (\n" + script + "\n) 2>&1 >&3 3>&- </dev/null; echo \"/$?\")\nprintf '\\n%s\\n%s\\n%s.\\n' " + mark + " \"$e\" " + mark + "\n"
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(i.in, text) // an error is the interpreter's end
	}()
	select {
	case <-i.out.complete():
	case <-i.ended:
	case <-ctx.Done():
		s.drop(i)
		return nil, ctx.Err()
	}
	data, whole, over := i.out.take()
	if !whole {
		<-i.ended
		s.drop(i)
		return nil, i.err
	}
	<-sent
	if over {
		return nil, fmt.Errorf("%s printed more than is read (%d MiB)", s.conn, readLimit>>20)
	}
	out, rest, ok := bytes.Cut(data, []byte("\n"+mark+"\n"))
	at := bytes.LastIndexByte(rest, '/')
	if !ok || at < 0 {
		s.drop(i)
		return nil, errors.New("the shell there answers what can't be read")
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(rest[at+1:])))
	if err != nil {
		s.drop(i)
		return nil, fmt.Errorf("the shell there answers what can't be read: %w", err)
	}
	if code != 0 {
		return nil, &scriptError{text: strings.TrimSpace(string(rest[:at])), code: code}
	}
	return out, nil
}

// output collects what a script prints until its last line.
type output struct {
	mu   sync.Mutex
	buf  []byte
	last []byte
	done chan struct{}
	is   bool
	over bool // there was more than is kept
}

func newOutput() *output { return &output{done: make(chan struct{})} }

func (o *output) expect(last string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf, o.last, o.is, o.over, o.done = nil, []byte(last), false, false, make(chan struct{})
}

func (o *output) complete() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf)+len(p) > readLimit { // read on: who isn't read from waits for ever
		o.over = true
		o.buf = slices.Clone(o.buf[max(0, len(o.buf)-len(o.last)):])
	}
	o.buf = append(o.buf, p...)
	if !o.is && bytes.HasSuffix(o.buf, o.last) {
		o.is = true
		close(o.done)
	}
	return len(p), nil
}

// take is all up to the last line, whether that came, and whether there was more
// than is kept.
func (o *output) take() (data []byte, whole, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.TrimSuffix(o.buf, o.last), o.is, o.over
}
