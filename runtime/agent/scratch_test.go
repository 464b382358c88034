package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestScratchIdle(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	r := newRig(t, 3)
	admin := r.form(spec.MajorityNodeSet)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n1", "")
	r.settled(admin, allUp)
	time.Sleep(2 * time.Second)
	var pids []int
	for _, n := range r.nodes {
		s := r.self(n)
		pids = append(pids, s.PID, s.MonitorPID)
	}
	for round := 0; round < 2; round++ {
		for i, p := range pids {
			out, _ := exec.Command("sh", "-c", fmt.Sprintf("awk '{print $14+$15}' /proc/%d/stat; grep -E '^(VmRSS|RssAnon|RssFile|Threads)' /proc/%d/status | tr '\\n' ' '; ls /proc/%d/task | wc -l", p, p, p)).CombinedOutput()
			fmt.Printf("%d %d %s\n", i, p, out)
		}
		if round == 0 {
			a := counters(pids)
			time.Sleep(20 * time.Second)
			b := counters(pids)
			for i := range pids {
				fmt.Printf("%d: wakeups/s %d, run ms/s %.2f\n", i, (b[i][0]-a[i][0])/20, float64(b[i][1]-a[i][1])/20e6)
			}
		}
	}
}

func counters(pids []int) (out [][2]int) {
	for _, p := range pids {
		var c [2]int
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p))
		for _, t := range tasks {
			var run, wait, n int
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", p, t.Name()))
			fmt.Sscan(string(data), &run, &wait, &n)
			c[0] += n
			c[1] += run
		}
		out = append(out, c)
	}
	return out
}
