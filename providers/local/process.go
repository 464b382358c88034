package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/providers"
)

// What belongs to a node is found by its environment, even where its parents
// are gone: agent and monitor have marker with the node's directory, all that a
// monitor starts has token, with a number that the monitor's record names.
const (
	marker = "CLUSTERPLAN_NODE_DIR"
	token  = "CLUSTERPLAN_MONITOR"
)

// recordFiles are those of a node's monitors: the one for groups that freeze has its own.
var recordFiles = []string{"run/record.json", "run/freezer.json"}

const (
	processPoll = 20 * time.Millisecond
	// orphanWait is how long a monitor whose agent is gone may take to stop its
	// groups at its lease's end, before it is killed.
	orphanWait = 15 * time.Second
	// killWait is how long killed processes may take to be gone.
	killWait = 10 * time.Second
	keepLogs = 3 // agent.log.1 and on
)

// Start runs the agent in a session of its own, so that it outlives this
// program and its terminal.
func (h *host) Start(ctx context.Context, dir string) error {
	if pid, err := h.Alive(ctx, dir); err != nil || pid != 0 {
		return err
	}
	abs := filepath.Join(h.root, filepath.FromSlash(dir))
	for _, d := range []string{"run", "log"} {
		if err := os.MkdirAll(filepath.Join(abs, d), 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	log, err := newLog(filepath.Join(abs, filepath.FromSlash(providers.AgentLog)))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(abs, filepath.FromSlash(providers.AgentLink)), "agent", "--dir", abs)
	cmd.Dir = abs
	cmd.Env = append(agentEnv(), marker+"="+abs)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.start(dir, cmd); err != nil {
		return err
	}
	// Nobody waits for it here: look reaps it if it ends while this program
	// runs, init does later.
	return cmd.Process.Release()
}

// agentEnv is this program's environment without what is meant for it alone.
func agentEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "CLUSTERPLAN_") })
}

// newLog begins a log file and keeps the last few.
func newLog(file string) (*os.File, error) {
	for i := keepLogs; i > 0; i-- {
		older := file
		if i > 1 {
			older = file + "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(older, file+"."+strconv.Itoa(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("rotate the agent's log: %w", err)
		}
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the agent's log: %w", err)
	}
	return f, nil
}

// Alive finds the agent by its pid file, else among all processes: it may not
// have written one yet.
func (h *host) Alive(ctx context.Context, dir string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	abs := filepath.Join(h.root, filepath.FromSlash(dir))
	if data, err := os.ReadFile(filepath.Join(abs, filepath.FromSlash(providers.AgentPIDFile))); err == nil {
		pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		p, ok := look(pid)
		for deadline := time.Now().Add(killWait); ok && p.dying && time.Now().Before(deadline); p, ok = look(pid) {
			time.Sleep(time.Millisecond) // whatever it was, it is over in a moment
		}
		if ok && isAgent(p, abs) {
			return pid, nil
		}
	}
	all, err := processesOf(abs)
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		if isAgent(p, abs) {
			return p.pid, nil
		}
	}
	return 0, nil
}

// Stop ends the agent and makes sure that nothing of the node is left.
func (h *host) Stop(ctx context.Context, dir string, grace time.Duration) error {
	abs := filepath.Join(h.root, filepath.FromSlash(dir))
	pid, err := h.Alive(ctx, dir)
	if err != nil {
		return err
	}
	if p, ok := look(pid); ok {
		sendSignal(p, unix.SIGTERM)
		sendSignal(p, unix.SIGCONT) // one that was stopped hears it too
		all, err := processesOf(abs)
		if err != nil {
			return err
		}
		for _, other := range all { // as does its monitor: the agent waits seconds for that
			sendSignal(other, unix.SIGCONT)
		}
		gone, err := waitGone(ctx, grace, func() ([]process, error) {
			if q, ok := look(p.pid); ok && q.start == p.start {
				return []process{q}, nil
			}
			return nil, nil
		})
		if err != nil {
			return err
		}
		if !gone {
			sendSignal(p, unix.SIGKILL)
		}
	}
	left := func() ([]process, error) { return processesOf(abs) }
	gone, err := waitGone(ctx, h.orphanWait, func() ([]process, error) {
		all, err := left()
		for _, p := range all {
			if isAgent(p, abs) { // killed, or started twice
				sendSignal(p, unix.SIGKILL)
			}
		}
		return all, err
	})
	if err != nil {
		return err
	}
	if !gone {
		gone, err = waitGone(ctx, killWait, func() ([]process, error) {
			all, err := left()
			for _, p := range all {
				sendSignal(p, unix.SIGKILL)
			}
			return all, err
		})
		if err != nil {
			return err
		}
	}
	if !gone {
		all, _ := left()
		var pids []string
		for _, p := range all {
			pids = append(pids, strconv.Itoa(p.pid))
		}
		return fmt.Errorf("processes %s of %s can't be killed; they wait in the kernel, perhaps for a disk", strings.Join(pids, ", "), abs)
	}
	return emptyCgroups(ctx, abs)
}

// emptyCgroups ends what hides from the search by environment in its program's
// cgroup, and takes the cgroups away. Where monitor and guardians ended in
// order, there are none any more.
func emptyCgroups(ctx context.Context, abs string) error {
	var dirs []string
	for _, name := range recordFiles {
		data, err := os.ReadFile(filepath.Join(abs, filepath.FromSlash(name)))
		if err != nil {
			continue // no monitor was started there
		}
		named, _ := cgroup.Recorded(data) // of a damaged record nothing is known, as for the search
		dirs = append(dirs, named...)
	}
	for _, dir := range dirs {
		deadline := time.Now().Add(killWait)
		for !cgroup.Kill(dir) {
			if time.Now().After(deadline) {
				return fmt.Errorf("processes in %s (cgroup.procs has their ids), of %s, can't be killed; they wait in the kernel, perhaps for a disk", dir, abs)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(processPoll):
			}
		}
		cgroup.Remove(dir)
	}
	return nil
}

// waitGone polls until left is empty, for at most wait.
func waitGone(ctx context.Context, wait time.Duration, left func() ([]process, error)) (bool, error) {
	deadline := time.Now().Add(wait)
	tick := time.NewTicker(processPoll)
	defer tick.Stop()
	for {
		all, err := left()
		if err != nil {
			return false, err
		}
		if len(all) == 0 {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}

// process is a process that runs (a zombie does not).
type process struct {
	pid   int
	start string // in clock ticks since boot: with pid it names a process for ever
	args  []string
	dying bool // its first thread has ended, others have not: its files are open still
}

// look finds a process. One of our own children that has ended is reaped.
func look(pid int) (process, bool) {
	if pid <= 0 {
		return process{}, false
	}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, false
	}
	// pid (comm) state ppid ...: comm may hold anything, so from its last ).
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return process{}, false
	}
	if state := fields[0]; state == "Z" || state == "X" {
		if fields[1] == strconv.Itoa(os.Getpid()) {
			var status unix.WaitStatus
			_, _ = unix.Wait4(pid, &status, unix.WNOHANG, nil) // someone else may have been faster
		}
		threads, err := os.ReadDir(dir + "/task")
		return process{pid: pid, start: fields[19], dying: true}, err == nil && len(threads) > 1
	}
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return process{}, false
	}
	return process{pid: pid, start: fields[19], args: strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")}, true
}

// isAgent tells whether p is the agent of the node directory abs.
func isAgent(p process, abs string) bool {
	i := slices.Index(p.args, "agent")
	return i >= 1 && i+2 < len(p.args) && p.args[i+1] == "--dir" && filepath.Clean(p.args[i+2]) == abs
}

// processesOf are the processes that belong to the node directory abs: those
// that are marked so, and agents that someone started by hand.
func processesOf(abs string) ([]process, error) {
	var record []byte
	for _, name := range recordFiles {
		data, err := os.ReadFile(filepath.Join(abs, filepath.FromSlash(name)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read what the monitor has started: %w", err)
		}
		record = append(record, data...)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Processes of other users can't be read, and are none of ours.
		environ, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue
		}
		started := variable(environ, token)
		marked := variable(environ, marker) == abs || (started != "" && bytes.Contains(record, []byte(`"`+started+`"`)))
		if !marked && !mentions(e.Name(), abs) {
			continue
		}
		if p, ok := look(pid); ok && (marked || isAgent(p, abs)) {
			out = append(out, p)
		}
	}
	return out, nil
}

// variable is a variable's value in an environment as /proc has it.
func variable(environ []byte, name string) string {
	for _, kv := range strings.Split(string(environ), "\x00") {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

func mentions(pid, abs string) bool {
	cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
	return err == nil && strings.Contains(string(cmdline), abs)
}

// sendSignal sends to exactly this process, never to a later one with its number.
func sendSignal(p process, sig unix.Signal) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if q, ok := look(p.pid); ok && q.start == p.start {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0) // gone in between: what was wanted
	}
}
