package providers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/shell"
)

// facts are what a host's script has told.
type facts struct {
	system  string // uname -s
	kernel  string
	uid     int
	clock   reading
	places  []place
	bin     place  // where programs lie; only dir and options
	systemd string // version; "": none
	memlock string // bytes, "unlimited"; "": not known
	has     map[string]bool
}

// place is a directory in which nodes lie or will lie: the first is the host's root,
// or the nearest directory above it that is there, others are what is mounted below
// for what is looked at.
type place struct {
	dir     string
	free    int64 // bytes; -1: not known
	inodes  int64 // that are free; -1: not known, or without a bound
	options []string
	writes  bool
}

// reading is a host's clock, and how closely it tells.
type reading struct {
	at     time.Time
	within time.Duration
}

// span tells how far a clock was ahead, which was read between two moments.
func (r reading) span(before, after time.Time) clockSpan {
	s := clockSpan{from: r.at.Sub(after), to: r.at.Add(r.within).Sub(before)}
	s.known = s.to-s.from <= clockUncertain
	return s
}

// script asks a host for everything at once.
func (w wants) script(root string) string {
	var b strings.Builder
	b.WriteString(`(LC_ALL=C; export LC_ALL
echo "clock $(date +%s.%N)"
echo "system $(uname -s)"; echo "kernel $(uname -r)"; echo "uid $(id -u)"
`)
	fmt.Fprintf(&b, "d=%s\n", shell.Quote(root))
	b.WriteString(`root=$d
while [ ! -d "$d" ] && [ -n "$d" ]; do d=${d%/*}; done; d=${d:-/}
place() { # DIRECTORY OPTIONS
	echo "place $1"; echo "options $2"; [ -w "$1" ] && echo "writable yes"
	echo "free $(df -Pk "$1" 2>/dev/null | { read -r x; read -r x x x free x; echo "$free"; })"
	echo "inodes $(df -Pi "$1" 2>/dev/null | { read -r x; read -r x all x free x; [ "$all" -gt 0 ] && echo "$free"; } 2>/dev/null)"
}
mounted() { # DIRECTORY: p is where it is, o how that is mounted
	p=$(cd "$1" 2>/dev/null && pwd -P) || p=$1
	[ "$p" != / ] || p=
	m= o=
	while read -r x at x opt x; do
		[ "$at" != / ] || at=
		case $p/ in "$at"/*) [ ${#at} -lt ${#m} ] || m=$at o=$opt;; esac
	done 2>/dev/null </proc/mounts
}
b=$d; [ "$d" != "$root" ] || [ ! -d "$d/` + BinDir + `" ] || b=$d/` + BinDir + `
mounted "$b"; echo "bin $b"; echo "mounted $o"
mounted "$d"; place "$d" "$o"
below() { # RELATIVE-DIRECTORY...: those on which something is mounted
	while read -r x at x opt x; do
		for x; do [ "$at" != "$p/$x" ] || place "$at" "$opt"; done
	done 2>/dev/null </proc/mounts
}
`)
	b.WriteString(`[ "$d" != "$root" ] || below ` + BinDir + " " + NodesDir)
	for _, dir := range w.dirs {
		for _, name := range []string{"", DataDirName, path.Dir(AgentLog), path.Dir(AgentSocket)} {
			b.WriteString(" " + shell.Quote(path.Join(dir, name)))
		}
	}
	b.WriteString(`
[ -d /run/systemd/system ] && echo "systemd $(systemctl --version 2>/dev/null | { read -r x v x; echo "$v"; })"
echo "memlock $(ulimit -l 2>/dev/null)"
has() { echo "has $1"; }
`)
	test := func(flag, path string) { fmt.Fprintf(&b, "[ %s %s ] && has %[2]s\n", flag, shell.Quote(path)) }
	test("-c", tunDevice)
	test("-w", sysrqTrigger)
	for _, path := range w.devices {
		test("-c", path)
	}
	for _, path := range slices.Sorted(maps.Keys(w.programs)) {
		test("-x", path)
	}
	for _, agent := range w.fence {
		if strings.Contains(agent, "/") {
			test("-x", agent)
			continue
		}
		fmt.Fprintf(&b, "for d in /usr/sbin /sbin /usr/bin; do [ -x \"$d\"/%s ] && { has %[1]s; break; }; done\n", shell.Quote(agent))
	}
	b.WriteString("echo end\n)\n")
	return b.String()
}

const (
	tunDevice    = "/dev/net/tun"
	sysrqTrigger = "/proc/sysrq-trigger"
)

func parseFacts(text string) (facts, error) {
	f := facts{uid: -1, has: map[string]bool{}}
	at, ended := &place{}, false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "clock":
			f.clock = parseClock(value)
		case "system":
			f.system = value
		case "kernel":
			f.kernel = value
		case "uid":
			if n, err := strconv.Atoi(value); err == nil {
				f.uid = n
			}
		case "place":
			f.places = slices.DeleteFunc(f.places, func(p place) bool { return p.dir == value }) // another is mounted over it
			f.places = append(f.places, place{dir: value, free: -1, inodes: -1})
			at = &f.places[len(f.places)-1]
		case "bin":
			f.bin.dir = value
		case "mounted":
			f.bin.options = strings.Split(value, ",")
		case "options":
			at.options = strings.Split(value, ",")
		case "writable":
			at.writes = true
		case "free":
			if n, err := strconv.ParseInt(value, 10, 53); err == nil && n >= 0 {
				at.free = n << 10
			}
		case "inodes":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				at.inodes = n
			}
		case "systemd":
			f.systemd = value
		case "memlock":
			f.memlock = value
		case "has":
			f.has[value] = true
		case "end":
			ended = true
		}
	}
	if !ended || f.system == "" || f.uid < 0 || len(f.places) == 0 {
		return f, errors.New("the host's shell did not answer as a POSIX shell does")
	}
	return f, nil
}

// parseClock reads seconds, with a fraction where the host's date knows %N.
func parseClock(text string) reading {
	seconds, fraction, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return reading{}
	}
	if n, err := strconv.ParseInt(fraction, 10, 64); err == nil && len(fraction) == 9 {
		return reading{at: time.Unix(s, n)}
	}
	return reading{at: time.Unix(s, 0), within: time.Second}
}

// room is how many bytes will be written on a host: what is there already takes
// none, so that a node that is full can still be mended.
func (p *Nodes) room(ctx context.Context, each *patient) int64 {
	need := int64(0)
	for _, x := range each.nodes {
		if x.site.conf == nil {
			need += roomForData
		}
	}
	arch, err := each.host.Arch(ctx)
	if err != nil {
		return need
	}
	file, digest, err := p.program(arch)
	if err != nil {
		return need
	}
	have, err := each.host.Files().List(ctx, BinDir)
	if err != nil || slices.Contains(have, path.Base(programFile(digest))) {
		return need
	}
	if info, err := os.Stat(file); err == nil {
		need += info.Size()
	}
	return need
}

const (
	roomForData = 64 << 20 // of a node that is new, at the least
	roomToWrite = 1 << 20  // keys and configuration
	roomToLive  = 1 << 30

	inodesToWrite = 64
	inodesToLive  = 1000

	memlockLow = 8 << 10 // KiB
)

// judge says what the facts mean for what is wanted.
func judge(f facts, w wants, need int64, add func(check, level, what, advice string)) {
	if f.system != "Linux" {
		add("system", LevelFail, f.system, "Nodes are on Linux")
		return
	}
	add("system", LevelOK, "Linux "+f.kernel, "")
	for i, at := range f.places {
		at.judge(i == 0, need, add)
	}
	if slices.Contains(f.bin.options, "noexec") {
		add("programs", LevelFail, f.bin.dir+" is on a file system that is mounted noexec: the agent's program could not run there", "Mount it without noexec (mount -o remount,exec, and in /etc/fstab), "+elsewhere)
	}
	root, at := f.uid == 0, f.places[0]
	switch {
	case root:
		add("rights", LevelOK, "root", "")
	case !at.writes && !slices.Contains(at.options, "ro"):
		add("rights", LevelFail, fmt.Sprintf("uid %d may not write in %s", f.uid, at.dir), "Let somebody be used who may; with provider ssh, write user = \"root\" or sudo = true")
	default:
		add("rights", LevelOK, fmt.Sprintf("uid %d", f.uid), "")
	}
	if n, err := strconv.ParseInt(f.memlock, 10, 64); err == nil && n < memlockLow && !root {
		add("memory lock", LevelWarn, fmt.Sprintf("%d KiB", n), "Raise RLIMIT_MEMLOCK to 8 MiB (ulimit -l, LimitMEMLOCK=): a monitor that has to be read back from disk comes too late")
	}
	if w.tun {
		switch {
		case !f.has[tunDevice]:
			add("addresses", LevelFail, "there is no "+tunDevice, "Load it with `modprobe tun`, or let the container have it")
		case !root:
			add("addresses", LevelFail, fmt.Sprintf("uid %d may not add addresses", f.uid), "Groups with addresses need root; with provider ssh, sudo = true")
		default:
			add("addresses", LevelOK, tunDevice, "")
		}
	}
	for _, device := range w.devices {
		switch {
		case !f.has[device]:
			add("watchdog", LevelFail, "there is no "+device, "Load the driver, without hardware `modprobe softdog`, or take the watchdog out of the definition")
		case !root:
			add("watchdog", LevelFail, fmt.Sprintf("uid %d may not open %s", f.uid, device), "A watchdog needs root")
		default:
			add("watchdog", LevelOK, device, "")
		}
	}
	if w.reset {
		if f.has[sysrqTrigger] {
			add("reset", LevelOK, sysrqTrigger, "")
		} else {
			add("reset", LevelFail, sysrqTrigger+" can't be written", "A node with reset = \"sysrq\" needs root, and a kernel with CONFIG_MAGIC_SYSRQ")
		}
	}
	for _, agent := range w.fence {
		if f.has[agent] {
			add("fence agent", LevelOK, agent, "")
		} else {
			add("fence agent", LevelFail, "there is no "+agent, "Install it, on Debian with `apt-get install fence-agents`")
		}
	}
	for _, path := range slices.Sorted(maps.Keys(w.programs)) {
		if f.has[path] {
			add("program", LevelOK, path, "")
		} else {
			add("program", LevelWarn, path+" is not there", fmt.Sprintf("%s runs it: install it on every node that may own its group", w.programs[path]))
		}
	}
}

const elsewhere = "or have nodes elsewhere (with provider ssh, directory)"

// judge says what is wrong with a directory for nodes.
func (p place) judge(first bool, need int64, add func(check, level, what, advice string)) {
	if !first {
		need = 0 // how it is spread over several, nobody knows
	}
	switch {
	case slices.Contains(p.options, "ro"):
		add("disk", LevelFail, p.dir+" is on a file system that is mounted read-only", "See in the kernel's log (dmesg) whether its disk has failed; mount it to be written (mount -o remount,rw), "+elsewhere)
		return
	case p.free < 0:
		add("disk", LevelWarn, "how much room there is in "+p.dir+" can't be told", "")
	case p.free < max(need, roomToWrite):
		add("disk", LevelFail, fmt.Sprintf("%s free in %s", size(p.free), p.dir), fmt.Sprintf("Make room: %s are needed, for the program and the beginning of a database", size(max(need, roomToWrite))))
	case p.free < roomToLive:
		add("disk", LevelWarn, fmt.Sprintf("%s free in %s", size(p.free), p.dir), "A node's database and its logs grow; give it 1 GiB")
	default:
		add("disk", LevelOK, fmt.Sprintf("%s free in %s", size(p.free), p.dir), "")
	}
	const advice = "Remove files there that nobody needs (df -i tells the figures); each file takes an inode, and a node has some dozens"
	switch {
	case p.inodes < 0 || p.inodes >= inodesToLive:
	case p.inodes < inodesToWrite:
		add("inodes", LevelFail, fmt.Sprintf("%d free in %s", p.inodes, p.dir), advice)
	default:
		add("inodes", LevelWarn, fmt.Sprintf("%d free in %s", p.inodes, p.dir), advice)
	}
}

// serviceManager says what will keep agents running.
func serviceManager(f facts, add func(check, level, what, advice string)) {
	switch {
	case f.systemd == "":
		add("service manager", LevelWarn, "no systemd: a script keeps agents running, and nothing starts it after a boot",
			"Have the host's own init start it, by the line at the head of nodes/NAME/supervise; else the next apply does")
	case f.uid != 0:
		add("service manager", LevelFail, fmt.Sprintf("uid %d may not add a unit to systemd", f.uid), "Write user = \"root\" or sudo = true")
	default:
		add("service manager", LevelOK, "systemd "+f.systemd, "")
	}
}

func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
