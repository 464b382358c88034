package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Processes are the processes that run in a namespace, zombies left out.
func Processes(namespace string) ([]int, error) {
	var ns unix.Stat_t
	if err := unix.Stat(nsPath(namespace), &ns); err != nil {
		return nil, fmt.Errorf("look into network namespace %s: %w", namespace, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t // of a zombie there is none
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && st.Ino == ns.Ino && st.Dev == ns.Dev {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Signal sends sig to every process in a namespace, also to those that are
// started meanwhile; how many there were.
func Signal(namespace string, sig syscall.Signal) (int, error) {
	sent := map[int]bool{}
	for {
		pids, err := Processes(namespace)
		if err != nil {
			return len(sent), err
		}
		fresh := false
		for _, pid := range pids {
			if sent[pid] {
				continue
			}
			fresh, sent[pid] = true, true
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return len(sent), fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
		if !fresh {
			return len(sent), nil
		}
	}
}

const (
	killWait = 10 * time.Second
	killPoll = 5 * time.Millisecond
)

// Kill ends every process in a namespace, and waits until they are gone; how
// many there were.
func Kill(namespace string) (killed int, err error) {
	deadline := time.Now().Add(killWait)
	for {
		n, err := Signal(namespace, syscall.SIGKILL)
		if killed = max(killed, n); err != nil || n == 0 {
			return killed, err
		}
		if time.Now().After(deadline) {
			return killed, fmt.Errorf("%d processes in network namespace %s can't be killed; they wait in the kernel, perhaps for a disk", n, namespace)
		}
		time.Sleep(killPoll)
	}
}

// Start starts a command inside of a namespace. The caller waits for it.
func Start(namespace string, cmd *exec.Cmd) error {
	return Do(namespace, cmd.Start)
}
