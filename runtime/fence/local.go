package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
)

// How the processes of a local node are found, also those whose parents are
// gone: agent and monitor have nodeMarker with the node's directory in their
// environment; all that a monitor starts has monitorToken, with a number that
// the monitor wrote into its record before.
const (
	nodeMarker   = "CLUSTERPLAN_NODE_DIR"
	monitorToken = "CLUSTERPLAN_MONITOR"
	configFile   = "agent.json"
)

// recordFiles are the node's monitors': each names what its programs carry.
var recordFiles = []string{"run/record.json", "run/freezer.json"}

const scanEvery = 10 * time.Millisecond

// localNode is a node of provider local on this machine.
type localNode struct {
	dir    string
	spaces map[string]bool // network namespaces that were seen to be its own
}

// local finds a node's directory beside the own one. Only a directory that says
// itself to be that node, of this cluster, is one.
func (r *Runner) local(node string) (device, error) {
	if node == "" || node == r.cfg.NodeID || r.cfg.ClusterID == "" {
		return nil, errors.New("the built-in agent local never ends its own node")
	}
	own, err := filepath.EvalSymlinks(r.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the nodes on this machine: %w", err)
	}
	root := filepath.Dir(own)
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("find the nodes on this machine: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		data, err := os.ReadFile(filepath.Join(dir, configFile))
		if err != nil {
			continue
		}
		var conf struct {
			ClusterID string `json:"cluster_id"`
			NodeID    string `json:"node_id"`
		}
		if json.Unmarshal(data, &conf) == nil && conf.NodeID == node && conf.ClusterID == r.cfg.ClusterID && dir != own {
			return &localNode{dir: dir, spaces: map[string]bool{}}, nil
		}
	}
	return nil, fmt.Errorf("the node's directory is not beside this node's in %s: the built-in agent local ends nodes of provider local on one machine only", root)
}

func (l *localNode) on(context.Context) error {
	return errors.New("the built-in agent local starts no node; clusterplan apply does")
}

// off kills all of the node until nothing is found twice in a row: a monitor
// may be starting something while it is being killed.
func (l *localNode) off(ctx context.Context) error {
	clean := 0
	for {
		all, err := l.processes()
		if err != nil {
			return err
		}
		hidden, err := l.cgroups()
		if err != nil {
			return err
		}
		if len(all) == 0 && len(hidden) == 0 {
			if clean++; clean == 2 {
				return nil
			}
		} else {
			clean = 0
		}
		for _, p := range all {
			p.kill()
		}
		for _, dir := range hidden {
			cgroup.Kill(dir)
		}
		if !sleep(ctx, scanEvery) {
			pids := make([]string, len(all), len(all)+len(hidden))
			for i, p := range all {
				pids[i] = strconv.Itoa(p.pid)
			}
			return fmt.Errorf("processes %s of %s can't be killed; they wait in the kernel, perhaps for a disk", strings.Join(append(pids, hidden...), ", "), l.dir)
		}
	}
}

func (l *localNode) isOff(context.Context) (bool, error) {
	all, err := l.processes()
	if err != nil {
		return false, err
	}
	hidden, err := l.cgroups()
	return err == nil && len(all)+len(hidden) == 0, err
}

// cgroups are those of the node's programs in which processes live: also such as
// hide from the search by environment, when their guardians were killed as well.
func (l *localNode) cgroups() ([]string, error) {
	var out []string
	for _, name := range recordFiles {
		file := filepath.Join(l.dir, filepath.FromSlash(name))
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read what the monitor has started: %w", err)
		}
		dirs, err := cgroup.Recorded(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, dir := range dirs {
			if cgroup.Populated(dir) {
				out = append(out, dir)
			}
		}
	}
	return out, nil
}

// process is a process that runs; with its start time it is one for ever.
type process struct {
	pid   int
	start string
}

// processes are those of the node: all that carry its mark, all that its
// monitors started, and, where the node has a network namespace of its own
// (provider local, mode netns), everything in there.
func (l *localNode) processes() ([]process, error) {
	var record []byte
	for _, name := range recordFiles {
		data, err := os.ReadFile(filepath.Join(l.dir, filepath.FromSlash(name)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read what the monitor has started: %w", err)
		}
		record = append(record, data...)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	shared := map[string]bool{space(os.Getpid()): true, space(1): true, "": true} // namespaces that are not this node's alone
	bySpace := map[string][]int{}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue // another user's, or gone
		}
		net, mark := space(pid), variable(environ, nodeMarker)
		bySpace[net] = append(bySpace[net], pid)
		started := variable(environ, monitorToken)
		switch {
		case mark == l.dir || started != "" && bytes.Contains(record, []byte(`"`+started+`"`)):
			pids = append(pids, pid)
			l.spaces[net] = true
		case mark != "":
			shared[net] = true // another node's
		}
	}
	for net := range l.spaces {
		if !shared[net] {
			pids = append(pids, bySpace[net]...)
		}
	}
	slices.Sort(pids)
	var out []process
	for _, pid := range slices.Compact(pids) {
		if start, runs := look(pid); runs {
			out = append(out, process{pid, start})
		}
	}
	return out, nil
}

// space names a process's network namespace, "" where it can't be told.
func space(pid int) string {
	name, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net")
	return name
}

func variable(environ []byte, name string) string {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(kv, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// look tells when a process was started, and whether any thread of it runs
// still (a zombie's don't).
func look(pid int) (start string, runs bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", false
	}
	// pid (comm) state ppid ...: comm may hold anything, so from its last ).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", false
	}
	if fields[0] == "Z" || fields[0] == "X" {
		threads, err := os.ReadDir(dir + "/task")
		return fields[19], err == nil && len(threads) > 1
	}
	return fields[19], true
}

// kill kills exactly this process, never a later one with its number.
func (p process) kill() {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if start, _ := look(p.pid); start == p.start {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone in between: what was wanted
	}
}
