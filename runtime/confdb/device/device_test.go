package device

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

func do(d *Device, op confdb.DeviceOp) confdb.DeviceResult {
	ch := make(chan confdb.DeviceResult)
	d.Do(op, func(r confdb.DeviceResult) {
		r.Data = bytes.Clone(r.Data)
		ch <- r
	})
	return <-ch
}

func use(t *testing.T, path string, create bool) {
	d := New(path)
	defer d.Close()
	if !create { // what is open is written alone
		if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err != "" {
			t.Fatalf("first read: %+v", r)
		}
	}
	data := append([]byte("header"), make([]byte, 4090)...)
	if r := do(d, confdb.DeviceOp{ID: 1, Data: data, Create: create}); r.Err != "" || r.ID != 1 {
		t.Fatalf("first write: %+v", r)
	}
	big := bytes.Repeat([]byte("abcdefgh"), 3*4096/8)
	if r := do(d, confdb.DeviceOp{ID: 2, Offset: 1 << 20, Data: big[:len(big)-100], Reserve: 1 << 20}); r.Err != "" {
		t.Fatalf("write of blocks: %+v", r)
	}
	r := do(d, confdb.DeviceOp{ID: 3, Offset: 1 << 20, Length: 4 * 4096})
	want := append(bytes.Clone(big[:len(big)-100]), make([]byte, 100+4096)...)
	if r.Err != "" || !bytes.Equal(r.Data, want) {
		t.Fatalf("read: %q, %d bytes", r.Err, len(r.Data))
	}
	if r := do(d, confdb.DeviceOp{ID: 4, Length: 4096}); r.Err != "" || !bytes.Equal(r.Data, data) {
		t.Fatalf("read of the header: %q", r.Err)
	}
}

// A file that is put in a device's place is never written by who has not read it:
// a write that a failed read overtook goes to the old one, or nowhere.
func TestWriteAfterASwap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quorum")
	d := New(path)
	defer d.Close()
	zeros := make([]byte, 4096)
	if r := do(d, confdb.DeviceOp{Data: zeros, Create: true}); r.Err != "" {
		t.Fatal(r.Err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, zeros, 0o600); err != nil {
		t.Fatal(err)
	}
	write := confdb.DeviceOp{Data: bytes.Repeat([]byte("x"), 4096)}
	asked := d.current() // of a write that is asked for now, and carried out after the read
	if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err == "" {
		t.Fatal("another file is read as the old one")
	}
	if r := do(d, write); r.Err == "" {
		t.Error("a write without a read opens the device")
	}
	if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err != "" {
		t.Fatal(r.Err)
	}
	if r, _ := d.operate(write, asked); r.Err != "" {
		t.Error(r.Err)
	}
	for name, want := range map[string]byte{path: 0, path + ".away": 'x'} {
		if b, err := os.ReadFile(name); err != nil || b[0] != want {
			t.Errorf("%s: %q, %v", name, b[:1], err)
		}
	}
	if r := do(d, write); r.Err != "" {
		t.Errorf("a write after a read: %s", r.Err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quorum")
	d := New(path)
	if r := do(d, confdb.DeviceOp{Length: 4096}); !r.Missing || r.Err == "" {
		t.Errorf("no file: %+v", r)
	}
	if r := do(New(filepath.Join(path, "x")), confdb.DeviceOp{Length: 4096}); r.Missing || r.Err == "" {
		t.Errorf("no directory, which may be a mount that is missing: %+v", r)
	}
	if r := do(d, confdb.DeviceOp{Data: make([]byte, 4096)}); r.Err == "" {
		t.Error("a write made a file that it may not make")
	}
	use(t, path, true)
	if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err != "" {
		t.Errorf("the file is there now: %s", r.Err)
	}
	// Gone, another one in its place, and back.
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err == "" {
		t.Error("a file that was moved away is read still")
	}
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err != "" || r.Data[0] != 0 {
		t.Errorf("another file in its place: %+v", r.Err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if r := do(d, confdb.DeviceOp{Length: 4096}); !strings.Contains(r.Err, "another file") {
		t.Errorf("the old file is back while another one is open: %q", r.Err)
	}
	if r := do(d, confdb.DeviceOp{Length: 4096}); r.Err != "" || r.Data[0] != 'h' {
		t.Errorf("the file is back: %q", r.Err)
	}
	if r := do(New("/dev/null"), confdb.DeviceOp{Length: 4096}); r.Err == "" {
		t.Error("/dev/null is no quorum device")
	}
	d.Close()
}

// A block device, with its size and past the page cache.
func TestBlockDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a loop device needs root")
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 200<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("this machine makes no loop device: %v: %s", err, out)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", loop).Run() })
	use(t, loop, true)
	if r := do(New(loop), confdb.DeviceOp{Length: 4096}); r.Size != 200<<20 {
		t.Errorf("its size: %+v", r.Size)
	}
}

// A file that can't be read past the page cache is refused: two hosts would read
// what each of them remembers. On a file system in memory there is one host.
func TestPageCache(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to open it needs root")
	}
	if r := do(New("/proc/sys/kernel/core_pattern"), confdb.DeviceOp{Length: 4096}); !strings.Contains(r.Err, "page cache") {
		t.Errorf("a file without O_DIRECT, that is not on tmpfs: %q, %d bytes", r.Err, len(r.Data))
	}
}
