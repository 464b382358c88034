package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
)

// childEnv makes this test binary the process that is killed (TestKilled), or
// one that meets a bound on the file's size (TestFullDisk).
const childEnv = "CLUSTERPLAN_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child writes entry after entry, compacts now and then, and says on standard
// output which entries are durable.
func child(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	st, err := s.Load()
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("server", s.ServerID())
	next := st.SnapshotIndex + uint64(len(st.Entries)) + 1
	for ; ; next++ {
		data := make([]byte, 100+next%400)
		p := confdb.Persist{
			HardState: binary.BigEndian.AppendUint64(nil, next),
			Entries:   []confdb.LogEntry{{Index: next, Term: next / 10, Data: data}},
		}
		if err := s.Write(p); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("durable", next)
		if next%25 == 0 {
			if err := s.Write(confdb.Persist{Snapshot: make([]byte, 30_000), SnapshotIndex: next - 5, KeepTail: true}); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
	}
}

func TestConformance(t *testing.T) {
	confdbtest.Stores(t, func(dir string) (confdbtest.Store, error) { return Open(dir) })
}

// Killed at any moment, the store opens again and holds every entry that was
// acknowledged, whole; the server id stays.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	var server string
	var durable uint64
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From its very start on (the file is being made then), or after some
		// writes, and then anywhere between two of them.
		after := rng.IntN(40)
		if round == 0 {
			after = 0
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == after {
				if round%3 == 2 {
					for range rng.IntN(300_000) { // some microseconds into the next write
						_ = n
					}
				}
				_ = cmd.Process.Kill() // goes on to read what was said before
			}
			word, value, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "error":
				t.Fatalf("round %d: %s", round, value)
			case "server":
				if server != "" && server != value {
					t.Fatalf("round %d: server id %s, before %s", round, value, server)
				}
				server = value
			case "durable":
				if _, err := fmt.Sscan(value, &durable); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("round %d: after the kill: %v", round, err)
		}
		st, err := s.Load()
		if err != nil {
			t.Fatalf("round %d: after the kill: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		last := st.SnapshotIndex + uint64(len(st.Entries))
		if last < durable || last > durable+1 {
			t.Fatalf("round %d: %d was durable, the log ends at %d", round, durable, last)
		}
		for _, e := range st.Entries {
			if e.Term != e.Index/10 || len(e.Data) != int(100+e.Index%400) {
				t.Fatalf("round %d: entry %d is not what was written", round, e.Index)
			}
		}
		if last > 0 && binary.BigEndian.Uint64(st.HardState) != last {
			t.Fatalf("round %d: a write was torn: hard state of %d, log to %d", round, binary.BigEndian.Uint64(st.HardState), last)
		}
		durable = last
	}
	if durable < 50 {
		t.Fatalf("only %d entries were written in all", durable)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if os.Geteuid() != 0 {
		if err := os.Chmod(filepath.Join(dir, FileName), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, os.ErrPermission) {
			t.Errorf("without permission: %v", err)
		}
	}
}

// filled is a store with a log and a snapshot, closed.
func filled(t *testing.T) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(60) {
		p := confdb.Persist{HardState: []byte("hard"), Entries: []confdb.LogEntry{{Index: i + 1, Term: 1, Data: make([]byte, 300)}}}
		if i == 30 {
			p.Snapshot, p.SnapshotIndex, p.KeepTail = make([]byte, 50_000), 20, true
		}
		if err := s.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, FileName)
}

// Whatever happens to the file's bytes: the store says that it is damaged, or
// what it reads is what was written. Never a panic, never something else.
func TestDamaged(t *testing.T) {
	dir, path := filled(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(good)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	id := s.ServerID()
	s.Close()
	rng := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for i := range 150 {
		bad := append([]byte(nil), good...)
		what := ""
		switch i % 3 {
		case 0:
			at := rng.IntN(min(used, 40*4096))
			bad[at] ^= 1 << rng.IntN(8)
			what = fmt.Sprint("bit flipped in byte ", at)
		case 1:
			page := rng.IntN(min(used, 40*4096) / 4096)
			clear(bad[page*4096 : (page+1)*4096])
			what = fmt.Sprint("page ", page, " zeroed")
		case 2:
			n := rng.IntN(used)
			bad = bad[:n]
			what = fmt.Sprint("cut to ", n)
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		var st confdb.Stored
		if err == nil {
			st, err = s.Load()
			s.Close()
		}
		switch {
		case err == nil:
			if s.ServerID() != id || !sameStored(st, want) {
				t.Errorf("%s: read as something else", what)
			}
		case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion):
			t.Errorf("%s: %v", what, err)
		default:
			refused++
			if !strings.Contains(err.Error(), dir) && !strings.Contains(err.Error(), path) {
				t.Errorf("%s: the error doesn't say where: %v", what, err)
			}
		}
	}
	if refused < 50 {
		t.Errorf("of 150 damages only %d were noticed: the test does little", refused)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("an emptied file passes for a new one: %v", err)
	}
}

func sameStored(a, b confdb.Stored) bool {
	if string(a.HardState) != string(b.HardState) || string(a.Snapshot) != string(b.Snapshot) || a.SnapshotIndex != b.SnapshotIndex || len(a.Entries) != len(b.Entries) {
		return false
	}
	for i, e := range a.Entries {
		if e.Index != b.Entries[i].Index || e.Term != b.Entries[i].Term || string(e.Data) != string(b.Entries[i].Data) {
			return false
		}
	}
	return true
}

func TestNewerVersion(t *testing.T) {
	dir, path := filled(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyFormat, seal(binary.BigEndian.AppendUint64(nil, 99)))
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(dir); !errors.Is(err, ErrVersion) {
		t.Errorf("version 99: %v", err)
	}
}

// A disk that is full is told; what was durable stays so, and once there is
// room again writes go on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=12m"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	big := func(i uint64) confdb.Persist {
		return confdb.Persist{Entries: []confdb.LogEntry{{Index: i, Term: 1, Data: make([]byte, 512<<10)}}}
	}
	last := uint64(0)
	for i := uint64(1); ; i++ {
		if err = s.Write(big(i)); err != nil {
			break
		}
		if last = i; last > 100 {
			t.Fatal("the disk is never full")
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("a full disk: %v", err)
	}
	if last < 10 {
		t.Errorf("only %d entries of 512 KiB had room in 12 MiB", last)
	}
	st, err := s.Load()
	if err != nil || uint64(len(st.Entries)) != last {
		t.Fatalf("after the disk was full: %d entries of %d, %v", len(st.Entries), last, err)
	}
}

// The space for the log is set aside up front.
func TestReservesSpace(t *testing.T) {
	dir, path := filled(t)
	_ = dir
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := fi.Sys().(*syscall.Stat_t).Blocks * 512; blocks < reserved {
		t.Skipf("this file system sets nothing aside (%d bytes)", blocks)
	}
	if fi.Size() > reserved {
		t.Errorf("a small log has a file of %d bytes", fi.Size())
	}
}

// What a write costs: two syncs of bbolt's.
func BenchmarkWrite(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var worst time.Duration
	data := make([]byte, 300)
	i := uint64(0)
	for b.Loop() {
		i++
		start := time.Now()
		if err := s.Write(confdb.Persist{HardState: data[:24], Entries: []confdb.LogEntry{{Index: i, Term: 1, Data: data}}}); err != nil {
			b.Fatal(err)
		}
		worst = max(worst, time.Since(start))
	}
	b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
}
