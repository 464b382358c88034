package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
)

// kill -9 just after any change to the hypervisor, of an apply and of a destroy of a
// volume with an image, and of a machine with its disk, its seed and its network: the
// next destroy leaves nothing, a storage pool that is empty, or holds what nobody owns,
// least of all.
func TestLibvirtKilledAtEveryCall(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, daemon *libvirtlab.Lab) {
		const definition = `
provider "libvirt" {
  uri                 = "qemu:///system?socket=SOCKET"
  ssh_public_key_file = "KEY.pub"
}

OBJECTS

cluster "lab" {
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}
`
		const volume = `
volume "data" {
  provider = libvirt
  image    = "data.img"
}
`
		const machine = `
network "lab" {
  provider = libvirt
  subnet   = "10.88.0.0/24"
}

machine "m" {
  provider    = libvirt
  network     = network.lab
  image       = "data.img"
  memory      = "32MiB"
  accelerator = "tcg"
  wait_for    = "none"
}
`
		dir := filepath.Join(daemon.Dir, "definition")
		l := &lab{t: t, dir: dir, program: program, env: []string{"HOME=" + dir}}
		d := deadlyCalls(t, filepath.Join(daemon.Dir, "proxy"))
		write := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write("data.img", string(make([]byte, 1<<20)))
		key := keyOf(t, daemon)
		destroy := []string{"destroy", "--auto-approve"}
		// killed runs a command that is killed after its nth change; false: it has fewer.
		killed := func(n int, args []string) bool {
			t.Helper()
			d.arm(n)
			pid, done, output := l.begin(args...)
			d.aim(pid)
			l.ended(done, output)
			return d.disarm()
		}
		for _, of := range []struct {
			target, objects   string
			changes           []uint32
			on                bool // a destroy that was killed is gone on with by one that is, after its first change
			applies, destroys int  // changes, at least
		}{
			{"volume.data", volume, storageChanges, false, 7, 5},
			{"machine.m", machine, machineChanges, true, 8, 5},
		} {
			d.changes = of.changes
			write("main.cluster.hcl", strings.NewReplacer("SOCKET", d.path, "KEY", key, "OBJECTS", of.objects).Replace(definition))
			apply := []string{"apply", "--auto-approve", "--target", of.target}
			n := 1
			for ; killed(n, apply); n++ {
				if n%3 == 0 { // it is gone on with as well
					l.must(0, apply...)
				}
				l.must(0, destroy...)
				l.nothingOn(daemon)
				if t.Failed() {
					t.Fatalf("an apply of %s that was killed after its change %d", of.target, n)
				}
			}
			applies := n - 1
			l.must(0, destroy...)
			l.must(0, apply...)
			destroys, next := 0, 1
			for ; killed(next, destroy); destroys++ {
				if !of.on {
					l.must(0, destroy...)
					l.nothingOn(daemon)
					l.must(0, apply...)
					next++
				}
				if t.Failed() || destroys == 20 {
					t.Fatalf("a destroy of %s that was killed after its change %d", of.target, destroys+1)
				}
			}
			l.nothingOn(daemon)
			t.Logf("%s: killed after each of %d changes of an apply and %d of a destroy", of.target, applies, destroys)
			if applies < of.applies || destroys < of.destroys {
				t.Error("that is too few to prove anything")
			}
		}
	})
}

// calls is libvirtd's socket with somebody in between who kills a client as soon as
// libvirtd has done what it asked for.
type calls struct {
	path    string
	changes []uint32 // calls that count

	mu   sync.Mutex
	left int // changes until then; 0: never
	pid  int
	hit  bool
	born chan struct{} // closed: pid is known
}

// storageChanges are libvirt's numbers of what changes pools and volumes, and
// machineChanges of what changes networks and machines; and 88, that looks at the pool
// when a machine's disk and seed are there, and the machine is not.
var (
	storageChanges = []uint32{77, 78, 79, 80, 81, 82, 90, 93, 94, 208, 260}
	machineChanges = []uint32{9, 11, 12, 29, 35, 39, 41, 42, 48, 49, 88, 196, 231, 264, 291, 350}
)

func deadlyCalls(t *testing.T, path string) *calls {
	t.Helper()
	c := &calls{path: path, born: make(chan struct{})}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

func (c *calls) arm(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.hit, c.born = n, false, make(chan struct{})
}

func (c *calls) aim(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
	close(c.born)
}

func (c *calls) disarm() (hit bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = 0
	return c.hit
}

// last tells whether a call that was answered is the one after which its client dies.
func (c *calls) last(procedure uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 || !slices.Contains(c.changes, procedure) {
		return false
	}
	c.left--
	c.hit = c.left == 0
	return c.hit
}

func (c *calls) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", "/run/libvirt/libvirt-sock")
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer client.Close()
		_ = messages(server, client, func(procedure, kind, status uint32) bool {
			if kind != 1 || status != 0 || !c.last(procedure) { // a reply, not an error
				return true
			}
			c.mu.Lock()
			born := c.born
			c.mu.Unlock()
			<-born
			_ = syscall.Kill(c.pid, syscall.SIGKILL)
			return false
		})
	}()
	_ = messages(client, server, func(_, _, _ uint32) bool { return true })
}

// messages passes libvirt's messages on as long as pass says so: length, program,
// version, procedure, type, serial, status, four bytes each, and the rest.
func messages(from io.Reader, to io.Writer, pass func(procedure, kind, status uint32) bool) error {
	for {
		head := make([]byte, 28)
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		at := binary.BigEndian.Uint32
		rest := make([]byte, at(head)-28)
		if _, err := io.ReadFull(from, rest); err != nil {
			return err
		}
		if !pass(at(head[12:]), at(head[16:]), at(head[24:])) {
			return nil
		}
		if _, err := to.Write(append(head, rest...)); err != nil {
			return err
		}
	}
}
