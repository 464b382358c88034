// Command kill measures how late the kernel's kill is: a monitor process is stopped
// (SIGSTOP) while it hosts a program, which has a child of its own and in another
// session, and, as root, holds a device like that of an ip_address. At the lease's end
// and stop_within everything should be gone; K (50 ms by default) is what a takeover
// allows for it.
//
//	go run ./bench/kill --runs 40 --load 12 --json
//
// prints {"runs", "load", "monitor", "device", "program", "late", "left"}: the median,
// 99th percentile and longest time from the moment due to the end of the monitor, of
// its device, and of the last process of the program, in milliseconds; late counts the
// runs in which the device or the program was there longer than K, left those in which
// something was after a second. A monitor that was killed runs no more; its end waits
// for the kernel to let go of the device. load is that many busy loops beside it, each
// in a session of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

const (
	lease      = 400 * time.Millisecond // from the order to start on
	stopWithin = 100 * time.Millisecond
	kill       = 50 * time.Millisecond // K
	patience   = 30 * time.Second
)

type spread struct {
	MedianMS float64 `json:"median_ms"`
	P99MS    float64 `json:"p99_ms"`
	MaxMS    float64 `json:"max_ms"`
}

type result struct {
	Runs    int     `json:"runs"`
	Load    int     `json:"load"`
	Monitor spread  `json:"monitor"`
	Device  *spread `json:"device,omitempty"`
	Program spread  `json:"program"`
	Late    int     `json:"late"`
	Left    int     `json:"left"`
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "monitor":
			os.Exit(monitor.Main(os.Args[2:]))
		case "guard":
			os.Exit(monitor.GuardMain(os.Args[2:]))
		case "spin":
			for i := 0; ; i++ { // never ends: it is killed
				if i < 0 {
					i = 0
				}
			}
		}
	}
	runs := flag.Int("runs", 40, "how often")
	load := flag.Int("load", 0, "busy loops beside it")
	asJSON := flag.Bool("json", false, "print the result as one JSON object")
	flag.Parse()
	out, err := measure(*runs, *load)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(out)
	} else {
		_, err = fmt.Printf("%d runs beside %d busy loops, in ms after the moment due (median, p99, longest):\nmonitor  %v\nprogram  %v\nlate     %d\nleft     %d\n", out.Runs, out.Load, out.Monitor, out.Program, out.Late, out.Left)
		if out.Device != nil && err == nil {
			_, err = fmt.Printf("device   %v\n", *out.Device)
		}
	}
	if err != nil {
		os.Exit(1)
	}
}

func measure(runs, load int) (out result, err error) {
	self, err := os.Executable()
	if err != nil {
		return out, err
	}
	runtime.LockOSThread() // for good: the loops end with this thread
	for range load {
		c := exec.Command(self, "spin")
		c.Env = []string{"GOMAXPROCS=1"}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
		if err := c.Start(); err != nil {
			return out, err
		}
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	}
	// Who looks has to be on time as well.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 50, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	withDevice := unix.Unshare(unix.CLONE_NEWNET) == nil // the monitor is started from this thread
	var monitors, devices, programs []float64
	for range runs {
		r, err := once(self, withDevice)
		if err != nil {
			return out, err
		}
		monitors, programs = append(monitors, ms(r.monitor)), append(programs, ms(r.program))
		last := r.program
		if withDevice {
			devices = append(devices, ms(r.device))
			last = max(last, r.device)
		}
		if last > kill {
			out.Late++
		}
		if max(last, r.monitor) >= time.Second {
			out.Left++
		}
	}
	out.Runs, out.Load, out.Monitor, out.Program = runs, load, spreadOf(monitors), spreadOf(programs)
	if withDevice {
		d := spreadOf(devices)
		out.Device = &d
	}
	return out, nil
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }

func spreadOf(v []float64) spread {
	slices.Sort(v)
	return spread{v[len(v)/2], v[min(len(v)-1, len(v)*99/100)], v[len(v)-1]}
}

// lateness is by how much the ends came after the moment due.
type lateness struct{ monitor, device, program time.Duration }

// once is one run. It runs on the locked thread.
func once(self string, withDevice bool) (out lateness, err error) {
	dir, err := os.MkdirTemp("", "clusterplan-kill-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(dir)
	p, err := monitor.StartProcess(context.Background(), monitor.Options{
		Configure: monitor.Configure{Cluster: "bench", Node: "n1", Dir: dir, Program: self, Socket: filepath.Join(dir, "api.sock")}})
	if err != nil {
		return out, err
	}
	defer func() { p.Kill(); <-p.Done() }()
	if err := await(p, func(w monitor.Word) bool { return w.Ready != nil }); err != nil {
		return out, err
	}
	end := boottime.Now().Add(time.Hour)
	if err := p.Send(monitor.Order{Renew: &end}); err != nil {
		return out, err
	}
	start := func(name, kind string, attributes map[string]any) error {
		return p.Send(monitor.Order{Start: &monitor.Start{Group: "g", GroupName: "g", Epoch: 1, StopWithin: spec.Duration(stopWithin), Kill: spec.Duration(kill),
			Resource: spec.Resource{ID: name, Name: name, Type: kind, Attributes: attributes}}})
	}
	online := func(name string) error {
		return await(p, func(w monitor.Word) bool {
			return w.Changed != nil && w.Changed.Resource == name && w.Changed.State == spec.StateOnline
		})
	}
	file := filepath.Join(dir, "pids")
	script := "trap '' TERM; echo $$ >> " + file + "; (setsid sh -c 'echo $$ >> " + file + "; while :; do sleep 1000; done' &); while :; do sleep 1000; done"
	if err := errors.Join(start("a", "generic_application", map[string]any{"command": []string{"/bin/sh", "-c", script}}), online("a")); err != nil {
		return out, err
	}
	sock := -1
	if withDevice {
		if err := errors.Join(up(), start("ip", "ip_address", map[string]any{"address": "10.9.8.7/24", "probe": "1ms"}), online("ip")); err != nil {
			return out, err
		}
		if sock, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return out, err
		}
		defer unix.Close(sock)
	}
	pids, err := pidsIn(file)
	if err != nil {
		return out, err
	}
	// A shorter lease, which it hears of before it is stopped.
	end = boottime.Now().Add(lease)
	stop := monitor.ResourceRef{Group: "none", Epoch: 1, Resource: "none"}
	err = errors.Join(p.Send(monitor.Order{Renew: &end}), p.Send(monitor.Order{Stop: &stop}),
		await(p, func(w monitor.Word) bool { return w.Changed != nil && w.Changed.Group == "none" }),
		unix.Kill(p.PID(), unix.SIGSTOP))
	if err != nil {
		return out, err
	}
	due := end.Add(stopWithin)
	var fds []int
	for _, pid := range append(pids, p.PID()) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return out, fmt.Errorf("process %d ended early: %w", pid, err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	out = lateness{time.Second, time.Second, time.Second}
	for boottime.Now().Before(due) {
		time.Sleep(time.Millisecond)
	}
	for out.monitor == time.Second || out.program == time.Second || withDevice && out.device == time.Second {
		late := boottime.Now().Sub(due)
		if late >= time.Second {
			break
		}
		if withDevice && out.device == time.Second && !deviceThere(sock) {
			out.device = late
		}
		left := 0
		for i, fd := range fds {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(poll, 0)
			switch {
			case n == 0 && i < len(pids):
				left++
			case n == 1 && i == len(pids) && out.monitor == time.Second:
				out.monitor = late
			}
		}
		if left == 0 && out.program == time.Second {
			out.program = late
		}
		pause := unix.Timespec{Nsec: int64(200 * time.Microsecond)}
		_ = unix.Nanosleep(&pause, nil)
	}
	return out, nil
}

// await waits for a word.
func await(p *monitor.Process, fits func(monitor.Word) bool) error {
	timeout := time.After(patience)
	for {
		select {
		case w, ok := <-p.Words():
			if !ok {
				<-p.Done()
				return fmt.Errorf("the monitor ended early: %v", p.Err())
			}
			if w.Changed != nil && w.Changed.State == spec.StateFailed {
				return fmt.Errorf("%s: %s", w.Changed.Resource, w.Changed.Reason)
			}
			if fits(w) {
				return nil
			}
		case <-timeout:
			return errors.New("the monitor does not answer")
		}
	}
}

// pidsIn waits for the two process ids that the program writes down.
func pidsIn(file string) (pids []int, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		f := strings.Fields(string(b))
		if len(f) != 2 || !strings.HasSuffix(string(b), "\n") {
			continue
		}
		for _, t := range f {
			pid, err := strconv.Atoi(t)
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
		return pids, nil
	}
	return nil, errors.New("the program does not start")
}

// up gives this thread's network namespace a network that the address fits in.
func up() error {
	for _, args := range [][]string{
		{"link", "add", "v0", "type", "veth", "peer", "name", "v1"}, {"link", "set", "v1", "up"}, {"address", "add", "10.9.8.1/24", "dev", "v0"}, {"link", "set", "v0", "up"}, {"link", "set", "lo", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil && !strings.Contains(string(out), "exists") && !strings.Contains(string(out), "already") {
			return fmt.Errorf("ip %s: %s", strings.Join(args, " "), out)
		}
	}
	return nil
}

// deviceThere tells whether the monitor's device is in the socket's namespace.
func deviceThere(sock int) bool {
	r, err := unix.NewIfreq("cplan0")
	if err != nil {
		return true
	}
	return !errors.Is(unix.IoctlIfreq(sock, unix.SIOCGIFINDEX, r), unix.ENODEV)
}
