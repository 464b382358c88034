package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// smallDisk gives a node a data directory on a file system of its own, and
// returns what fills it and what makes room again.
func smallDisk(t *testing.T, n *nodeRig) (fill, free func()) {
	t.Helper()
	dir := filepath.Join(n.dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=10m"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	filler := filepath.Join(dir, "filler")
	fill = func() {
		// Also what was set aside for the log, which would never be used up: this
		// is about what follows then.
		db, err := os.OpenFile(filepath.Join(dir, "confdb.bolt"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		st, err := db.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Fallocate(int(db.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, st.Size(), 16<<20); err != nil {
			t.Skipf("needs a file system that gives space back: %v", err)
		}
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 4096); ; {
			if _, err := f.Write(block); err != nil {
				return
			}
		}
	}
	return fill, func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// use writes into the cluster's database until its log has used up its space.
func (r *clusterRig) use(stop <-chan struct{}) {
	admin := r.client("admin")
	g := r.webGroup()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		g.Description = strings.Repeat(string(rune('a'+i%26)), 200_000)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		_, _ = admin.PutGroup(ctx, g, 0)
		cancel()
	}
}

func (n *nodeRig) said(text string) bool {
	log, _ := os.ReadFile(filepath.Join(n.dir, "agent.log"))
	return strings.Contains(string(log), text)
}

// A full disk on one of three: its groups go elsewhere in order, it waits, and
// takes part again once there is room, by itself.
func TestFullDiskOfOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	n2 := r.node("n2")
	fill, free := smallDisk(t, n2)
	admin := r.form(spec.MajorityNodeSet)
	g := r.webGroup()
	g.PreferredOwners = []string{"n2", "n1", "n3"}
	if _, err := admin.PutGroup(r.ctx(), g, 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n2", "")
	fill()
	stop := make(chan struct{})
	go r.use(stop)
	eventually(t, func() string {
		if !n2.said("waits until its database can be written") {
			return "it does not wait"
		}
		return ""
	})
	close(stop)
	if by := r.answers("", "n2"); by == "n2" {
		t.Errorf("answered by %s", by)
	}
	if !n2.said("the disk is full") {
		t.Error("it did not say why")
	}
	free()
	r.settled(admin, allUp)
	if n2.cmd.ProcessState != nil {
		t.Error("its process ended")
	}
}

// A full disk of the only node: what runs goes on, nothing can be changed, and
// all is well once there is room.
func TestFullDiskOfTheOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	n1 := r.node("n1")
	fill, free := smallDisk(t, n1)
	admin := r.form(spec.SingleNode)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n1", "")
	fill()
	stop := make(chan struct{})
	go r.use(stop)
	eventually(t, func() string {
		if !n1.said("groups go on, nothing can be changed") {
			return "it did not say so"
		}
		return ""
	})
	close(stop)
	r.answers("n1", "")
	self := r.self(n1)
	free()
	eventually(t, func() string {
		if !n1.said("the database can be written again") {
			return "it does not write again"
		}
		return ""
	})
	r.settled(admin, allUp)
	if again := r.self(n1); again.PID != self.PID || again.MonitorPID != self.MonitorPID {
		t.Errorf("agent or monitor are others: %+v, then %+v", self, again)
	}
}
