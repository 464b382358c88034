package sshconn

import (
	"bytes"
	"cmp"
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
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/clusterplan/clusterplan/internal/shell"
)

const (
	keepStdout  = 1 << 20
	keepStderr  = 64 << 10
	maxLine     = 120_000          // Linux takes 128 KiB in one argument, which the line is for the login shell
	maxWord     = 900              // an old csh takes 1024
	beginsSoon  = 2 * time.Second  // one whose caller leaves before it has begun
	endWithin   = 5 * time.Second  // a command whose caller has left
	sudoAnswers = 30 * time.Second // sudo lets in, asks or refuses within
)

// beginsWithin is how long the host's login shell may take to begin a command.
var beginsWithin = time.Minute

// Command is a program to run on a host.
type Command struct {
	Argv []string // as they are: no shell makes anything else of them
	// Stdin is read until it ends or the command does; a read that is under way
	// then goes on alone. nil: empty.
	Stdin io.Reader
	// Env is added to the environment. Everybody on the host can read it.
	Env map[string]string
	// Login runs it as who logged in, also where Config.Sudo is on.
	Login bool
	// Stdout gets the output; nil: Result.Stdout has the first Limit bytes (1 MiB).
	Stdout io.Writer
	Limit  int
}

// Result is what came of a command that ran to its end.
type Result struct {
	Code      int    // the exit code
	Signal    string // that ended it ("KILL"), then Code is 128 or more
	Stdout    []byte
	Stderr    []byte // the first 64 KiB
	Truncated bool   // there was more output than is kept
}

// ExitError is a command that failed.
type ExitError struct {
	At   string
	Argv []string
	Result
}

func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != "" {
		how = "ended by signal " + e.Signal
	}
	text := strings.TrimSpace(string(e.Stderr))
	if text == "" {
		text = strings.TrimSpace(string(e.Stdout))
	}
	if len(text) > 2000 {
		text = "..." + text[len(text)-2000:]
	}
	if text != "" {
		how += ": " + text
	}
	name := "the command"
	if len(e.Argv) > 0 {
		name = e.Argv[0]
	}
	return fmt.Sprintf("%s: %s: %s", e.At, name, how)
}

// Output runs a command and gives its output; a failed one is an *ExitError.
func (c *Conn) Output(ctx context.Context, cmd Command) ([]byte, error) {
	r, err := c.Run(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, &ExitError{At: c.String(), Argv: cmd.Argv, Result: r}
	}
	if r.Truncated {
		return nil, c.fail(nil, nil, "", "%s printed more than is read", cmd.Argv[0])
	}
	return r.Stdout, nil
}

// Run runs a command to its end; the error is nil whatever its exit code was.
// When ctx ends first, the command is asked to end (TERM), then made to. An
// error that wraps ErrUnreachable may mean that it has run or runs on.
func (c *Conn) Run(ctx context.Context, cmd Command) (Result, error) {
	become, err := c.becomes(ctx, cmd)
	if err != nil {
		return Result{}, err
	}
	line, err := commandLine(cmd)
	if err != nil {
		return Result{}, c.fail(nil, err, "", "run a command")
	}
	s, err := c.session(ctx)
	if err != nil {
		return Result{}, err
	}
	defer s.release()
	p := &process{c: c, s: s, cmd: cmd, out: &bounded{max: keepStdout}, errs: &bounded{max: keepStderr}}
	if cmd.Limit > 0 {
		p.out.max = cmd.Limit
	}
	p.gate = newGate(become, c.t.sudo.Password, p.errs)
	return p.run(ctx, p.gate.line(line))
}

// commandLine is what the login shell is given.
func commandLine(cmd Command) (string, error) {
	if len(cmd.Argv) == 0 || cmd.Argv[0] == "" {
		return "", errors.New("there is no command")
	}
	var words []string
	if len(cmd.Env) > 0 {
		words = append(words, "env")
		for k, v := range cmd.Env {
			if k == "" || strings.ContainsAny(k, "=\x00") || strings.HasPrefix(k, "-") {
				return "", fmt.Errorf("%q is no name of an environment variable", k)
			}
			words = append(words, k+"="+v)
		}
		slices.Sort(words[1:])
	}
	words = append(words, cmd.Argv...)
	for i, w := range words {
		if strings.ContainsRune(w, 0) {
			return "", fmt.Errorf("an argument of %s has a NUL in it", cmd.Argv[0])
		}
		words[i] = shell.Quote(w)
	}
	line := anyShell(strings.Join(words, " "))
	if len(line) > maxLine {
		return "", fmt.Errorf("the arguments of %s are too long (%d bytes)", cmd.Argv[0], len(line))
	}
	return line, nil
}

// anyShell makes words of a line for sh, which every login shell passes on alike:
// a csh takes neither a newline nor a ! between quotes, and to fish a backslash
// before a quote or another backslash means something. printf %b makes the line of
// them again.
func anyShell(line string) string {
	var b strings.Builder
	word := 0
	b.WriteByte('\'')
	for _, c := range []byte(line) {
		if word > maxWord {
			b.WriteString("' '")
			word = 0
		}
		if c < ' ' || c > '~' || c == '\'' || c == '\\' || c == '!' {
			fmt.Fprintf(&b, `\0%03o`, c)
			word += 5
		} else {
			b.WriteByte(c)
			word++
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// process is a command under way.
type process struct {
	c    *Conn
	s    *session
	cmd  Command
	out  *bounded
	own  *begun
	errs *bounded
	gate *gate

	input atomic.Pointer[error] // why the input ended too early
}

// input remembers why it could not be read to its end.
type input struct {
	io.Reader
	err error
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err != nil && err != io.EOF {
		i.err = err
	}
	return n, err
}

func (p *process) run(ctx context.Context, line string) (Result, error) {
	stdin, err := p.s.StdinPipe()
	if err != nil {
		return Result{}, p.lost(err)
	}
	p.gate.stdin = stdin
	p.own = &begun{mark: []byte(p.gate.mark + "\n"), to: p.out}
	if p.cmd.Stdout != nil {
		p.own.to = p.cmd.Stdout
	}
	p.s.Stdout, p.s.Stderr = p.own, p.gate
	started := make(chan error, 1)
	go func() { started <- p.s.Start(line) }()
	select {
	case err = <-started:
	case <-ctx.Done(): // the host may have begun it all the same: then it is ended below
		select {
		case err = <-started:
		case <-time.After(beginsSoon):
			err = ctx.Err()
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return Result{}, p.c.fail(nil, context.Cause(ctx), "", "run %s", p.cmd.Argv[0])
		}
		return Result{}, p.lost(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.s.Wait() }()
	go func() {
		select {
		case <-p.gate.open:
		case <-p.s.ended:
			return
		}
		if p.cmd.Stdin != nil {
			input := &input{Reader: p.cmd.Stdin}
			io.Copy(stdin, input)
			if input.err != nil {
				p.input.Store(&input.err)
				p.s.Close() // an input cut short must not look like a whole one
				return
			}
		}
		stdin.Close()
	}()
	if p.gate.sudo {
		if err := p.gate.wait(ctx, done); err != nil {
			if ctx.Err() != nil {
				p.end(done)
			}
			p.s.Close()
			return Result{}, p.sudoRefused(ctx, err)
		}
	}
	late := time.NewTimer(beginsWithin)
	defer late.Stop()
	begun := p.gate.open
wait:
	select {
	case err = <-done:
	case <-begun:
		begun = nil
		late.Stop()
		goto wait
	case <-late.C:
		if p.gate.opened() {
			goto wait
		}
		p.s.Close()
		return Result{}, p.c.fail(ErrUnreachable, nil, fmt.Sprintf("See what its start files (~/.bashrc) and its disks wait for: `ssh %s@%s true`", p.c.t.user, p.c.t.host),
			"the login shell of %s did not begin %s within %s", p.c.t.user, p.cmd.Argv[0], beginsWithin)
	case <-ctx.Done():
		p.end(done)
		return Result{}, p.c.fail(nil, context.Cause(ctx), "", "%s was cut off", p.cmd.Argv[0])
	}
	return p.result(err)
}

func (p *process) result(err error) (Result, error) {
	r := Result{Stdout: p.out.Bytes(), Stderr: p.errs.Bytes(), Truncated: p.out.over}
	var exit *ssh.ExitError
	if read := p.input.Load(); read != nil {
		return r, p.c.fail(nil, *read, "", "read the input of %s", p.cmd.Argv[0])
	}
	if (err == nil || errors.As(err, &exit)) && !p.gate.opened() {
		said := cmp.Or(p.gate.said(), strings.TrimSpace(string(p.own.before)), "it says nothing")
		return r, p.c.fail(nil, errors.New(said), fmt.Sprintf("Give %s a login shell, and look for ForceCommand in its sshd_config and command= in authorized_keys", p.c.t.user),
			"the host does not run commands for %s", p.c.t.user)
	}
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &exit):
		r.Code, r.Signal = exit.ExitStatus(), exit.Signal()
		return r, nil
	}
	return r, p.lost(err)
}

// lost is the error of a session that broke off.
func (p *process) lost(err error) error {
	return p.c.fail(ErrUnreachable, noEOF(err), "Whether it has run, or runs still, is not known", "the connection was lost while %s ran", p.cmd.Argv[0])
}

// noEOF: an end of file explains nothing.
func noEOF(err error) error {
	var missing *ssh.ExitMissingError
	if errors.Is(err, io.EOF) || errors.As(err, &missing) {
		return nil
	}
	return err
}

// end ends a command whose caller has left: by a signal through its session,
// which sshd passes on only for users other than root and not to what sudo runs,
// and by its number from another session. One that is about to begin has none
// yet, and would run on where nobody knows it.
func (p *process) end(done chan error) {
	begins := time.NewTimer(beginsSoon)
	defer begins.Stop()
	select {
	case <-p.gate.open:
	case err := <-done:
		done <- err
	case <-begins.C:
	}
	go p.s.Signal(ssh.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	p.gate.kill(ctx, p.c, p.cmd.Login)
	p.s.Close()
	select { // nothing is written to its output any more
	case <-done:
	case <-ctx.Done():
	}
}

// bounded keeps the first bytes of a stream and lets the rest pass.
type bounded struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	max  int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if room := b.max - b.buf.Len(); room < len(p) {
		b.over = true
		b.buf.Write(p[:max(room, 0)])
	} else {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *bounded) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// begun passes on a command's own output: what the login shell's start files print
// before it (~/.bashrc of bash, for one) is no part of it.
type begun struct {
	mark   []byte
	to     io.Writer
	before []byte
	is     bool
}

func (b *begun) Write(p []byte) (int, error) {
	if b.is {
		return b.to.Write(p)
	}
	b.before = append(b.before, p...)
	if at := bytes.Index(b.before, b.mark); at >= 0 {
		rest := b.before[at+len(b.mark):]
		b.is, b.before = true, nil
		if len(rest) > 0 {
			if _, err := b.to.Write(rest); err != nil {
				return 0, err
			}
		}
	} else if len(b.before) > keepStderr {
		b.before = slices.Clone(b.before[len(b.before)-keepStderr/2:])
	}
	return len(p), nil
}

// gate stands before a command. It tells its process number, answers sudo's
// question for the password, and opens when the command itself begins, so that the
// password never becomes the command's input nor its input the password. The mark
// on standard output is begun's.
type gate struct {
	sudo     bool
	password string
	mark     string
	stdin    io.Writer
	rest     io.Writer
	open     chan struct{}
	wrong    chan struct{}

	mu    sync.Mutex
	buf   []byte
	asked int
	begun bool
	pid   int
}

var errWrongPassword = errors.New("the password is wrong")

func newGate(sudo bool, password string, rest io.Writer) *gate {
	return &gate{sudo: sudo, password: password, rest: rest, mark: "clusterplan-" + random(), open: make(chan struct{}), wrong: make(chan struct{})}
}

func random() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func (g *gate) line(command string) string {
	how := ""
	switch {
	case g.sudo && g.password != "":
		how = "sudo -S -p " + shell.Quote(g.mark+"?") + " -- "
	case g.sudo:
		how = "sudo -n -- "
	}
	// The line is whole before it begins: a printf that is missing, or is ended in
	// the middle, would have nothing run that succeeds, or half a line.
	return how + "sh -c " + shell.Quote(`clusterplan=$(printf %b "$@") || exit; echo "$0"; echo "$0=$$" >&2; eval "exec $clusterplan"`) + " " + g.mark + " " + command
}

// Write gets standard error.
func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.begun {
		g.rest.Write(p)
		return len(p), nil
	}
	g.buf = append(g.buf, p...)
	for {
		at := bytes.Index(g.buf, []byte(g.mark+"?"))
		if at < 0 {
			break
		}
		g.buf = slices.Delete(g.buf, at, at+len(g.mark)+1)
		if g.asked++; g.asked == 1 {
			io.WriteString(g.stdin, g.password+"\n")
		} else if g.asked == 2 {
			close(g.wrong)
		}
	}
	if at := bytes.Index(g.buf, []byte(g.mark+"=")); at >= 0 {
		after := g.buf[at+len(g.mark)+1:]
		if end := bytes.IndexByte(after, '\n'); end >= 0 {
			g.pid, _ = strconv.Atoi(string(after[:end]))
			g.begun = true
			g.rest.Write(after[end+1:])
			close(g.open)
		}
	} else if len(g.buf) > keepStderr {
		g.buf = slices.Clone(g.buf[len(g.buf)-keepStderr/2:])
	}
	return len(p), nil
}

func (g *gate) opened() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.begun
}

// wait returns nil once the command runs.
func (g *gate) wait(ctx context.Context, done chan error) error {
	late := time.NewTimer(sudoAnswers)
	defer late.Stop()
	select {
	case <-g.open:
		return nil
	case <-g.wrong:
		return errWrongPassword
	case err := <-done:
		done <- err
		if g.opened() { // begun and over
			return nil
		}
		var exit *ssh.ExitError
		if err != nil && !errors.As(err, &exit) {
			return &hostError{kind: ErrUnreachable, what: "the connection was lost", cause: noEOF(err)}
		}
		return errors.New(cmp.Or(g.said(), "it says nothing"))
	case <-late.C:
		return fmt.Errorf("it asks something that has no answer here: %s", g.said())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// said is the last line before the command: sudo may print a lecture first.
func (g *gate) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	text := strings.TrimSpace(string(g.buf))
	if len(text) > 500 {
		text = "..." + text[len(text)-500:]
	}
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

func (p *process) sudoRefused(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return p.c.fail(nil, context.Cause(ctx), "", "%s was cut off", p.cmd.Argv[0])
	}
	if errors.Is(err, ErrUnreachable) {
		return p.c.fail(ErrUnreachable, err, "", "run %s with sudo", p.cmd.Argv[0])
	}
	todo := fmt.Sprintf("Allow it with a line `%s ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d, or give sudo's password", p.c.t.user)
	if strings.Contains(err.Error(), "tty") {
		todo = fmt.Sprintf("Let sudo do without a terminal there: a line `Defaults:%s !requiretty` in /etc/sudoers.d", p.c.t.user)
	} else if p.gate.password != "" {
		todo = fmt.Sprintf("Give the password of %s, who must be allowed to run every command in /etc/sudoers", p.c.t.user)
	}
	return p.c.fail(ErrSudo, err, todo, "sudo does not let %s be root", p.c.t.user)
}

// kill ends the command, and its process group if it leads one: TERM, then KILL.
func (g *gate) kill(ctx context.Context, c *Conn, login bool) {
	g.mu.Lock()
	pid := g.pid
	g.mu.Unlock()
	if pid > 1 {
		c.Run(ctx, Command{Argv: []string{"sh", "-c", killScript, "sh", strconv.Itoa(pid)}, Login: login})
	}
}

const killScript = `send() { kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null; }
send TERM "$1"
for i in 1 2 3 4 5 6 7 8 9; do
	kill -0 "$1" 2>/dev/null || exit 0
	sleep 0.2 2>/dev/null || sleep 1
done
send KILL "$1"`

// rootState is what is known of the login user, for one live connection.
type rootState struct{ known, root bool }

// becomes tells whether sudo is needed: root has no need of it, and may not have it.
func (c *Conn) becomes(ctx context.Context, cmd Command) (bool, error) {
	if !c.t.sudo.Enabled || cmd.Login {
		return false, nil
	}
	if _, err := c.connect(ctx); err != nil {
		return false, err
	}
	c.mu.Lock()
	state := c.root
	c.mu.Unlock()
	if !state.known {
		out, err := c.Output(ctx, Command{Argv: []string{"id", "-u"}, Login: true})
		if err != nil {
			return false, err
		}
		state = rootState{known: true, root: strings.TrimSpace(string(out)) == "0"}
		c.mu.Lock()
		c.root = state
		c.mu.Unlock()
	}
	return !state.root, nil
}
