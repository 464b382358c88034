package sshconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// proxy stands between, counts connections, and cuts each after so many bytes
// towards the server.
type proxy struct {
	l        net.Listener
	to       string
	count    atomic.Int32
	cutAfter atomic.Int64 // 0: never
	rate     atomic.Int64 // bytes a second towards the server; 0: all that come
	cuts     atomic.Int32 // that are left; with cutAfter

	mu    sync.Mutex
	conns []net.Conn
}

func startProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{l: l, to: to}
	t.Cleanup(func() { l.Close(); p.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.count.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go func() { io.Copy(in, out); in.Close() }()
			go func() {
				if n := p.cutAfter.Load(); n > 0 && p.cuts.Add(-1) >= 0 {
					io.CopyN(out, in, n)
					in.Close()
				} else if n := p.rate.Load(); n > 0 {
					for _, err := io.CopyN(out, in, n/50); err == nil; _, err = io.CopyN(out, in, n/50) {
						time.Sleep(time.Second / 50)
					}
				} else {
					io.Copy(out, in)
				}
				out.Close()
			}()
		}
	}()
	return p
}

// cut breaks all connections that are open.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *proxy) port() int { return p.l.Addr().(*net.TCPAddr).Port }

func TestUploadCutOff(t *testing.T) {
	s := startSSHD(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	p := startProxy(t, s.addr())
	cfg := s.config()
	cfg.Port = p.port()
	dir := t.TempDir()
	put := func(name string) error {
		return connect(t, cfg).Put(context.Background(), dir+"/"+name, bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o755})
	}
	p.cutAfter.Store(int64(len(data) / 2))
	p.cuts.Store(1)
	must(t, put("once"))
	if got, err := os.ReadFile(dir + "/once"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came: %v", len(got), err)
	}
	must(t, os.WriteFile(dir+"/always", []byte("old"), 0o600))
	p.cuts.Store(2)
	wants(t, put("always"), ErrUnreachable, "put "+dir+"/always", "the connection was lost")
	if got, _ := os.ReadFile(dir + "/always"); string(got) != "old" {
		t.Errorf("%d bytes are there", len(got))
	}
	// What the server's own processes still hold goes when they have noticed.
	eventually(t, "nothing is left behind", func() bool {
		names, _ := os.ReadDir(dir)
		return len(names) == 2
	})
	if n := p.count.Load(); n != 5 {
		t.Errorf("%d connections, want 2 for the first, 3 for the second with what it cleans", n)
	}
}

func TestOneConnection(t *testing.T) {
	s := startSSHD(t, "MaxSessions 1")
	p := startProxy(t, s.addr())
	cfg := s.config()
	cfg.Port = p.port()
	pool := newPool(t, Options{})
	dir := t.TempDir()
	var wg sync.WaitGroup
	data := bytes.Repeat([]byte("x"), 256<<10)
	for i := range 6 {
		wg.Go(func() {
			c, err := pool.Conn(cfg)
			if err == nil {
				err = c.Put(context.Background(), fmt.Sprintf("%s/%d", dir, i), bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o600})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names, _ := os.ReadDir(dir); len(names) != 6 {
		t.Errorf("%d files", len(names))
	}
	if n := p.count.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	c := open(t, pool, cfg)

	// Lost between two commands: made anew, unseen.
	p.cut()
	sh(t, c, "true")
	// Lost while one runs: told, and not run again.
	marks := dir + "/marks"
	go func() {
		for range 3000 {
			if text, _ := os.ReadFile(marks); len(text) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		p.cut()
	}()
	_, err := c.Run(context.Background(), Command{Argv: []string{"sh", "-c", "echo x >> " + marks + "; sleep 60 & wait"}})
	wants(t, err, ErrUnreachable, "lost while sh ran", "not known")
	sh(t, c, "true")
	if text, _ := os.ReadFile(marks); string(text) != "x\n" {
		t.Errorf("ran %q", text)
	}
	must(t, pool.Close())
	if _, err := c.Run(context.Background(), Command{Argv: []string{"true"}}); err == nil {
		t.Error("ran in a closed pool")
	}
}

func TestCancel(t *testing.T) {
	s := startSSHD(t)
	c := connect(t, s.config())
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	go func() {
		line := make([]byte, 64)
		n, _ := out.Read(line)
		cancel()
		io.Copy(io.Discard, out)
		_ = n
	}()
	pidFile := s.dir + "/pid"
	_, err := c.Run(ctx, Command{Argv: []string{"sh", "-c", "echo $$ > " + pidFile + "; echo x; sleep 60"}, Stdout: in})
	wants(t, err, context.Canceled, "sh was cut off")
	text, err := os.ReadFile(pidFile)
	must(t, err)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	eventually(t, "the command is gone", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })

	broken := io.MultiReader(strings.NewReader("part"), readerFunc(func([]byte) (int, error) { return 0, errors.New("disk on fire") }))
	_, err = c.Run(context.Background(), Command{Argv: []string{"cat"}, Stdin: broken})
	wants(t, err, nil, "read the input of cat: disk on fire")
}

// A command whose caller leaves while the host says that it has begun it is ended:
// else it would run on where nobody knows of it.
func TestCancelAtItsBegin(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	began, answer, killed := make(chan string, 1), make(chan struct{}), make(chan string, 1)
	host := &ssh.ServerConfig{NoClientAuth: true}
	key := writeKey(t, t.TempDir()+"/hostkey", "")
	host.AddHostKey(key)
	command := func(ch ssh.NewChannel, first bool) {
		s, requests, err := ch.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		for r := range requests {
			if r.Type != "exec" {
				continue
			}
			var exec struct{ Line string }
			_ = ssh.Unmarshal(r.Payload, &exec)
			mark := regexp.MustCompile(`clusterplan-[0-9a-f]+`).FindString(exec.Line)
			if first {
				began <- exec.Line
				<-answer
			}
			_ = r.Reply(true, nil)
			fmt.Fprintf(s, "%s\n", mark)
			fmt.Fprintf(s.Stderr(), "%s=4242\n", mark)
			if !first {
				killed <- exec.Line
				_, _ = s.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{0}))
				return
			}
		}
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, channels, requests, err := ssh.NewServerConn(conn, host)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		first := true
		for ch := range channels {
			go command(ch, first)
			first = false
		}
	}()
	c := connect(t, Config{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, User: "root", HostKey: string(ssh.MarshalAuthorizedKey(key.PublicKey())),
		SSHConfigFile: "none", AgentSocket: "none", KnownHostsFile: t.TempDir() + "/known_hosts"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := c.Run(ctx, Command{Argv: []string{"work"}})
		done <- err
	}()
	<-began
	cancel()
	close(answer)
	wants(t, <-done, context.Canceled, "work was cut off")
	select {
	case line := <-killed:
		if !strings.Contains(line, "kill") || !strings.HasSuffix(line, " 4242'") {
			t.Errorf("run instead of its end: %q", line)
		}
	default:
		t.Error("the command runs on")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestUnreachable(t *testing.T) {
	ctx := context.Background()
	s := startSSHD(t)
	cfg := s.config()
	cfg.Port, cfg.RetryFor = freePort(t), -1
	wants(t, connect(t, cfg).Connect(ctx), ErrUnreachable, fmt.Sprintf("127.0.0.1:%d: can't connect: connect: connection refused. Check", cfg.Port))

	// It comes while it is tried.
	late := &sshd{t: t, dir: s.dir, port: cfg.Port}
	cfg.RetryFor = 30 * time.Second
	done := make(chan error, 1)
	c := connect(t, cfg)
	go func() { done <- c.Connect(ctx) }()
	late.start()
	must(t, <-done)

	// It says nothing, or is no SSH server.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	cfg.Port, cfg.RetryFor, cfg.ConnectTimeout = l.Addr().(*net.TCPAddr).Port, -1, 200*time.Millisecond
	wants(t, connect(t, cfg).Connect(ctx), ErrUnreachable, "did not finish the greeting and login within 200ms")
	shut := startProxy(t, "127.0.0.1:1")
	cfg.Port = shut.port()
	wants(t, connect(t, cfg).Connect(ctx), ErrUnreachable, "ended the connection before the login", "MaxStartups")
	cfg = s.config()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	wants(t, connect(t, cfg).Connect(cancelled), context.Canceled, s.addr())
}

// pauses are those that a pool says it makes before it tries a host again.
type pauses struct {
	slog.Handler
	all *[]time.Duration
}

func (p pauses) Enabled(context.Context, slog.Level) bool { return true }

func (p pauses) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "after" {
			*p.all = append(*p.all, a.Value.Duration())
		}
		return true
	})
	return nil
}

// A host that refuses is tried again after pauses that double, up to a bound, for
// as long as is asked and no longer.
func TestBackOff(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	cfg := Config{Host: "127.0.0.1", Port: port, User: "root", PrivateKeyFile: dir + "/id", HostKey: string(ssh.MarshalAuthorizedKey(writeKey(t, dir+"/id", "").PublicKey())),
		SSHConfigFile: "none", AgentSocket: "none", RetryFor: 12 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		var got []time.Duration
		began := time.Now()
		err := open(t, newPool(t, Options{Log: slog.New(pauses{slog.DiscardHandler, &got})}), cfg).Connect(t.Context())
		wants(t, err, ErrUnreachable, "connection refused")
		ms := time.Millisecond
		if want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2000 * ms, 2000 * ms, 2000 * ms, 2000 * ms}; !slices.Equal(got, want) {
			t.Errorf("pauses %v, want %v", got, want)
		}
		if took := time.Since(began); took != 11100*ms {
			t.Errorf("it was tried for %s: those pauses were not made", took)
		}
	})
}

// A host that stops answering, with its connection open, is noticed and dialled
// anew: only the process of the one connection stands still.
func TestKeepAlive(t *testing.T) {
	s := startSSHD(t)
	cfg := s.config()
	cfg.KeepAlive = 50 * time.Millisecond
	c := connect(t, cfg)
	first := sh(t, c, "echo $PPID")
	pid, err := strconv.Atoi(first)
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGKILL)
	second := sh(t, c, "echo $PPID")
	if first == second {
		t.Error("the same process answered")
	}
	if sh(t, c, "echo $PPID") != second {
		t.Error("a live connection was not used again")
	}
}

// A host behind a slow line is no dead one: the question whether it is there, and
// what it answers, wait behind what is uploaded.
func TestSlowUpload(t *testing.T) {
	s := startSSHD(t)
	p := startProxy(t, s.addr())
	p.rate.Store(768 << 10)
	cfg := s.config()
	cfg.Port, cfg.KeepAlive = p.port(), 400*time.Millisecond // 1.6 s without a word; 2 MiB are under way, for 2.7 s
	data := bytes.Repeat([]byte("slow"), 768<<10)
	name := t.TempDir() + "/f"
	must(t, connect(t, cfg).Put(context.Background(), name, bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o600}))
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came: %v", len(got), err)
	}
	if n := p.count.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestForwarding(t *testing.T) {
	ctx := context.Background()
	s := startSSHD(t)
	c := connect(t, s.config())
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = s.dir + "/sock"
		}
		l, err := net.Listen(network, address)
		must(t, err)
		defer l.Close()
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(conn, conn)
			conn.Close()
		}()
		conn, err := c.Dial(ctx, network, l.Addr().String())
		must(t, err)
		fmt.Fprint(conn, "hello")
		must(t, conn.(interface{ CloseWrite() error }).CloseWrite())
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("%s: came back as %q: %v", network, got, err)
		}
		conn.Close()
	}
	_, err := c.Dial(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	wants(t, err, nil, s.addr()+": from there 127.0.0.1:", "Connection refused")
	if errors.Is(err, ErrUnreachable) {
		t.Error("the host itself was reached")
	}
	off := startSSHD(t, "AllowTcpForwarding no", "AllowStreamLocalForwarding no")
	c = connect(t, off.config())
	_, err = c.Dial(ctx, "tcp", s.addr())
	wants(t, err, ErrForwarding, off.addr(), "AllowTcpForwarding")
	_, err = c.Dial(ctx, "unix", s.dir+"/sock")
	wants(t, err, nil, "AllowStreamLocalForwarding")
	sh(t, c, "true") // the connection is as good as before
}

// A tiny machine: busybox is all that there is, with no program for digests.
func TestTinyHost(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("skipped: busybox is not installed (apt-get install busybox-static)")
	}
	bin := t.TempDir()
	for _, name := range strings.Fields("sh cat chmod find id ln ls mkdir mv printf readlink rm stat sync true sha256sum") {
		must(t, os.Symlink(busybox, bin+"/"+name))
	}
	s := startSSHD(t, "SetEnv PATH="+bin)
	c := connect(t, s.config())
	ctx := context.Background()
	for range 2 {
		dir := t.TempDir()
		data := bytes.Repeat([]byte("tiny"), 128<<10)
		must(t, c.Put(ctx, dir+"/a/b", bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o711, Parents: true}))
		must(t, c.Symlink(ctx, "a", dir+"/link"))
		must(t, c.Symlink(ctx, "a/b", dir+"/link"))
		if got, err := c.ReadFile(ctx, dir+"/link"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %v", len(got), err)
		}
		if info, err := c.Stat(ctx, dir+"/a/b"); err != nil || info.Mode != 0o711 {
			t.Errorf("%+v %v", info, err)
		}
		if names, err := c.List(ctx, dir+"/a"); err != nil || len(names) != 1 {
			t.Errorf("%q %v", names, err)
		}
		must(t, c.Remove(ctx, dir+"/a"))
		os.Remove(bin + "/sha256sum") // the second time the digest is read back
	}
}

// only is a directory with nothing but these of this machine's programs.
func only(t *testing.T, names string) string {
	bin := t.TempDir()
	for _, name := range strings.Fields(names) {
		program, err := exec.LookPath(name)
		must(t, err)
		must(t, os.Symlink(program, bin+"/"+name))
	}
	return bin
}

// What a host's program for digests prints that is no digest is not taken for one:
// where there is another program it is asked, else the file is read back, and what
// was printed is told where that doesn't match either.
func TestOddDigest(t *testing.T) {
	bin := only(t, "sh cat chmod find id ln ls mkdir mv printf readlink rm stat sync true sha256sum")
	s := startSSHD(t, "SetEnv PATH="+bin)
	c := connect(t, s.config())
	put := func(name, sum string) error {
		return c.Put(t.Context(), s.dir+"/"+name, strings.NewReader("data"), 4, PutOptions{Mode: 0o600, SHA256: sum})
	}
	wrong := strings.Repeat("0", 64)
	must(t, os.WriteFile(bin+"/openssl", []byte("#!/bin/sh\ncat >/dev/null\necho 'Error setting digest: unsupported (fips mode)'\n"), 0o755))
	must(t, put("one", ""))
	wants(t, put("two", wrong), nil, "sha256sum prints 3a6eb0790f39ac87", "is to be "+wrong)
	must(t, os.Remove(bin+"/sha256sum"))
	must(t, put("three", ""))
	wants(t, put("four", wrong), nil, "read back it has 3a6eb0790f39ac87", "`openssl dgst -sha256` prints no digest: Error setting digest: unsupported (fips mode)")
	must(t, os.WriteFile(bin+"/openssl", []byte("#!/bin/sh\ncat >/dev/null\necho '(stdin)= "+strings.Repeat("f", 64)+"'\n"), 0o755))
	wants(t, put("five", ""), nil, "`openssl dgst -sha256` prints "+strings.Repeat("f", 64))
	for name, want := range map[string]bool{"one": true, "two": false, "three": true, "four": false, "five": false} {
		if _, err := os.Stat(s.dir + "/" + name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Where the host's sh can't make the command's line, nothing runs, and nothing has
// succeeded: neither where it has no printf, nor where that ends in the middle.
func TestNoLine(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	bin := only(t, "rm ls")
	s := startSSHD(t, "SetEnv PATH="+bin)
	c := connect(t, s.config())
	must(t, os.Mkdir(s.dir+"/keep", 0o755))
	for want, printf := range map[string]string{
		"printf: command not found": "enable -n printf",
		"it was ended":              "printf() { echo \"rm -rf " + s.dir + "/keep\"; echo it was ended >&2; return 137; }; export -f printf",
	} {
		// A bash that is called sh, or that sshd seems to have started, reads no BASH_ENV.
		must(t, os.WriteFile(bin+"/sh", []byte("#!"+bash+"\nunset SSH_CLIENT SSH2_CLIENT\nexport BASH_ENV="+bin+"/env.sh\nexec "+bash+" \"$@\"\n"), 0o755))
		must(t, os.WriteFile(bin+"/env.sh", []byte(printf+"\n"), 0o644))
		r, err := c.Run(t.Context(), Command{Argv: []string{"ls", "/"}})
		wants(t, err, nil, want)
		if len(r.Stdout) > 0 {
			t.Errorf("it printed %q", r.Stdout)
		}
	}
	if _, err := os.Stat(s.dir + "/keep"); err != nil {
		t.Error(err)
	}
}

func needBash(t *testing.T) {
	t.Helper()
	if passwd, _ := os.ReadFile("/etc/passwd"); !regexp.MustCompile(`(?m)^root:.*/bash$`).Match(passwd) {
		t.Skip("root's shell is not bash: it reads no file before a command")
	}
}

// What the login shell's start files print is no part of what commands print: a
// file that is there would be read with it, or thought not to be there.
func TestShellThatTalks(t *testing.T) {
	needBash(t)
	s := startSSHD(t, "Banner /etc/hosts", "PrintMotd yes")
	c := connect(t, s.config())
	write(t, s.dir+"/.bashrc", "echo Welcome; printf 'to this host'; echo 'and mind the step' >&2\n")
	ctx := context.Background()
	r, err := c.Run(ctx, Command{Argv: []string{"sh", "-c", "cat; echo bad >&2"}, Stdin: strings.NewReader("own input")})
	must(t, err)
	if string(r.Stdout) != "own input" || string(r.Stderr) != "bad\n" {
		t.Errorf("%q, %q", r.Stdout, r.Stderr)
	}
	name := s.dir + "/a file 'of \" its own"
	must(t, c.Put(ctx, name, strings.NewReader("data"), 4, PutOptions{Mode: 0o600}))
	if data, err := c.ReadFile(ctx, name); err != nil || string(data) != "data" {
		t.Errorf("%q, %v", data, err)
	}
	write(t, s.dir+"/.bashrc", "echo closed for the holidays; exit\n")
	_, err = c.Output(ctx, Command{Argv: []string{"true"}})
	wants(t, err, nil, "the host does not run commands for root", "closed for the holidays")
}

// A login shell that never comes to the command is told, and not waited for.
func TestShellThatWaits(t *testing.T) {
	needBash(t)
	s := startSSHD(t)
	c := open(t, newPool(t, Options{}), s.config())
	write(t, s.dir+"/.bashrc", "while [ -e "+s.dir+"/.bashrc ]; do sleep 0.1; done\n") // until the test is over
	old := beginsWithin
	defer func() { beginsWithin = old }()
	beginsWithin = time.Second
	_, err := c.Output(t.Context(), Command{Argv: []string{"true"}})
	wants(t, err, ErrUnreachable, "the login shell of root did not begin true within 1s", "~/.bashrc")
}
