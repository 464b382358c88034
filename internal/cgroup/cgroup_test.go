package cgroup_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/internal/cgroup/cgrouptest"
)

// All below a monitor's cgroup is killed, and the directories are gone.
func TestEmpty(t *testing.T) {
	dir, alive := cgrouptest.Hidden(t)
	if !cgroup.Populated(dir) || !alive() {
		t.Fatalf("%s: populated %v, its process lives %v", dir, cgroup.Populated(dir), alive())
	}
	cgroup.Empty(dir, func(since time.Duration) { t.Logf("it lives still after %s", since) })
	if _, err := os.Stat(dir); !os.IsNotExist(err) || alive() {
		t.Errorf("%s: %v, its process lives %v", dir, err, alive())
	}
	if !cgroup.Kill(dir) || cgroup.Populated(dir) || !cgroup.Kill("") {
		t.Error("what isn't there is not empty")
	}
}

// Of a record only monitors' cgroups are believed: all in there is killed.
func TestRecorded(t *testing.T) {
	for _, c := range []struct {
		record string
		want   string // "": an error
	}{
		{`{"boot": "b", "tokens": ["t"], "guardians": null}`, "[]"},
		{`{"cgroups": ["/sys/fs/cgroup/a/clusterplan-0f", "/sys/fs/cgroup/clusterplan-1e"]}`, "[/sys/fs/cgroup/a/clusterplan-0f /sys/fs/cgroup/clusterplan-1e]"},
		{`{"cgroups": ["/sys/fs/cgroup/clusterplan-0f", "/sys/fs/cgroup"]}`, ""},
		{`{"cgroups": ["clusterplan-0f"]}`, ""},
		{`{"cgroups": ["/sys/fs/cgroup/clusterplan-0f/../system.slice"]}`, ""},
		{`{"cgroups": ["/sys/fs/cgroup/clusterplan-0f`, ""},
	} {
		dirs, err := cgroup.Recorded([]byte(c.record))
		if c.want == "" && err == nil || c.want != "" && (err != nil || fmt.Sprint(dirs) != c.want) {
			t.Errorf("%s: %v, %v; want %q", c.record, dirs, err, c.want)
		}
	}
}
