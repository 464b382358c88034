package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Starts that come while their group ends wait for Down, and Down is said
// before they begin.
func TestStartWhileEnding(t *testing.T) {
	t.Parallel()
	r := ready(t)
	r.send(app("exec sleep 1000"))
	r.awaitState("a", spec.StateOnline)
	r.send(Order{End: &GroupRef{"g", 1}})
	r.send(app("exec sleep 1000", func(s *Start) { s.Epoch = 2 }))
	seen := false
	r.await("online under 2", func(w Word) bool {
		seen = seen || w.Down != nil && w.Down.Epoch == 1
		return w.Changed != nil && w.Changed.Epoch == 2 && w.Changed.State == spec.StateOnline
	})
	if !seen {
		t.Fatalf("no Down of epoch 1 before the start under 2:%s", r.words())
	}
	// A Stop takes back a start that waits.
	r.send(Order{Stop: &ResourceRef{"g", 2, "a"}})
	r.awaitState("a", spec.StateOffline)
	r.send(Order{End: &GroupRef{"g", 2}})
	r.awaitDown("g", 2)
	r.send(Order{End: &GroupRef{"unknown", 18446744073709551615}})
	r.awaitDown("unknown", 18446744073709551615)
}

func TestIPAddress(t *testing.T) {
	t.Parallel()
	r := ready(t)
	vip := func(address string) Order {
		return Order{Start: &Start{Group: "g", GroupName: "web", Epoch: 1, Resource: spec.Resource{
			ID: "id-v", Name: "v", Type: "ip_address", Attributes: map[string]any{"address": address},
		}}}
	}
	r.send(vip("fe80::1"))
	if got := r.awaitState("v", spec.StateFailed); !strings.Contains(got.Reason, "link-local address") {
		t.Fatal(got.Reason)
	}
	r.send(vip("127.77.0.10"))
	r.awaitState("v", spec.StateOnline)
	r.renew(time.Millisecond)
	r.awaitState("v", spec.StateOffline)
}

// SIGTERM ends a monitor in order.
func TestTerminated(t *testing.T) {
	t.Parallel()
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file), attribute("stop_timeout", "200ms")))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	if err := unix.Kill(r.p.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.awaitState("a", spec.StateOffline)
	<-r.p.Done()
	if err := r.p.Err(); err != nil {
		t.Error(err)
	}
	for _, p := range pids {
		if alive(p) {
			t.Errorf("%d lives after the monitor's end", p.PID)
		}
	}
}

// The two ends of a life on one machine: a monitor without a process, to reach
// it with bytes that no agent sends.
func TestGarbage(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	mine, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	board, memory, err := newBoard()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess(self, []string{self, "monitor"}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr, theirs, memory}})
	if err != nil {
		t.Fatal(err)
	}
	memory.Close()
	theirs.Close()
	in := newLineReader(conn)
	await := func(what string, fits func(Word) bool) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		for {
			var w Word
			if err := in.read(&w); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if fits(w) {
				return
			}
		}
	}
	send := func(b []byte) {
		t.Helper()
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	conf := configureOf(dir)
	line, err := encodeLine(Order{Configure: &conf})
	if err != nil {
		t.Fatal(err)
	}
	send(line)
	await("ready", func(w Word) bool { return w.Ready != nil })
	for _, junk := range []string{"hello\n", "\x00\xff\n", `{"renew":"soon"}` + "\n", `{"start":{"epoch":-1}}` + "\n", "[]\n"} {
		send([]byte(junk))
		await("a complaint about "+junk, func(w Word) bool { return w.Log != nil && w.Log.Level == "warn" })
	}
	send([]byte("{}\n\n" + `{"start":{}}` + "\n"))
	await("refusal", func(w Word) bool { return w.Changed != nil && w.Changed.State == spec.StateFailed })
	// A long line is well, as long as it is no longer than the limit.
	board.write(boottime.Now().Add(time.Hour))
	long := app("exec sleep 1000", attribute("environment", map[string]string{"LONG": strings.Repeat("x", 100_000)}))
	if line, err = encodeLine(long); err != nil {
		t.Fatal(err)
	}
	send(line)
	await("online", func(w Word) bool { return w.Changed != nil && w.Changed.State == spec.StateOnline })
	// Past the limit the peer is no agent: the monitor goes on without it, and
	// ends.
	s, err := statOf(p.Pid)
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, conn)
	_, _ = conn.Write(bytes.Repeat([]byte{'x'}, maxLine+8192))
	conn.(*net.UnixConn).CloseWrite()
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, processID{p.Pid, s.start})
}

func TestSendNeverBlocks(t *testing.T) {
	t.Parallel()
	r := ready(t)
	if err := unix.Kill(r.p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopped", func() bool { s, err := statOf(r.p.PID()); return err == nil && s.state == 'T' })
	end := spec.Instant(1) << 60
	for range 100_000 { // renewals take each other's place
		r.send(Order{Renew: &end})
	}
	var err error
	for range 100_000 {
		if err = r.p.Send(Order{End: &GroupRef{strings.Repeat("x", 1000), 1}}); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrBacklog) {
		t.Fatalf("orders without end: %v", err)
	}
	r.p.Kill()
	<-r.p.Done()
	if err := r.p.Send(Order{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("an order to a dead monitor: %v", err)
	}
}

// An agent that takes no words doesn't stop the monitor's loop, and is given up.
func TestSpeakerNeverBlocks(t *testing.T) {
	r, w := net.Pipe() // nobody reads
	defer r.Close()
	s := newSpeaker(w)
	go s.run()
	for range 3 * maxLogWords {
		s.log("info", "text", nil)
	}
	select {
	case <-s.failed:
		t.Fatal("failed by lines for the log alone")
	default:
	}
	for range 3 * maxWords {
		s.say(Word{Down: &GroupRef{}})
	}
	select {
	case <-s.failed:
	case <-time.After(patience):
		t.Fatal("never given up")
	}
	w.Close()
	s.finish(patience)
	select {
	case <-s.done:
	default:
		t.Fatal("it doesn't end")
	}
}

func TestProcessErrors(t *testing.T) {
	t.Parallel()
	conf := configureOf(t.TempDir())
	conf.Program = "/no/such"
	if _, err := StartProcess(context.Background(), Options{Configure: conf}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no program: %v", err)
	}
	// A node's directory that can't be written: the reason is told.
	dir := newDir(t)
	if err := os.WriteFile(filepath.Join(dir, "run"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := StartProcess(context.Background(), Options{Configure: configureOf(dir), Stderr: null})
	if err != nil {
		t.Fatal(err)
	}
	var told string
	for w := range p.Words() {
		if w.Log != nil {
			told += w.Log.Text + fmt.Sprint(w.Log.Args)
		}
	}
	<-p.Done()
	if p.Err() == nil || !strings.Contains(p.Err().Error(), "exit status 1") || !strings.Contains(told, "run directory") {
		t.Errorf("err %v, told %q", p.Err(), told)
	}
}

func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	run := filepath.Join(dir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "record.json"), []byte(`{"boot": "x`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRig(t, dir)
	r.await("a word about it", func(w Word) bool { return w.Log != nil && strings.Contains(fmt.Sprint(w.Log.Args), "is damaged") })
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	if !exists(filepath.Join(run, "record.json.damaged")) {
		t.Error("the damaged record is gone")
	}
	// A record of another boot names no process of this one.
	self, err := statOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(recordData{Boot: "another", Guardians: []processID{{os.Getpid(), self.start}}, Epochs: map[string]uint64{"g": 7}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "record.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	rec, damage, err := openRecord(filepath.Join(run, recordFile))
	if err != nil || damage != nil {
		t.Fatal(err, damage)
	}
	if tokens, guardians := rec.left(); len(tokens)+len(guardians) > 0 || rec.epoch("g") != 7 {
		t.Errorf("tokens %v, guardians %v, epoch %d", tokens, guardians, rec.epoch("g"))
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "\n", `{"renew":5}` + "\n", `{"start":{"group":"g","resource":{"name":"x"}}}` + "\n", "{}\nx\n{}", strings.Repeat("a", 5000) + "\n{}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newLineReader(bytes.NewReader(b))
		lines := bytes.Count(b, []byte{'\n'})
		for n := 0; ; n++ {
			var o Order
			err := in.read(&o)
			if err == nil || errors.Is(err, errLine) {
				if err == nil && o.Start != nil {
					if _, err := encodeLine(o); err != nil {
						t.Fatalf("an order that was read can't be written: %v", err)
					}
				}
				continue
			}
			if n != lines {
				t.Fatalf("%d lines read, want %d: %v", n, lines, err)
			}
			return
		}
	})
}
