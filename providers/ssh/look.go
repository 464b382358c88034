package ssh

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/clusterplan/clusterplan/providers"
)

// look is what one script read of a host: the programs, and of every node its
// small files, its agent and the state of its unit.
type look struct {
	programs []string
	nodes    []string
	data     map[string][]string // what lies in nodes' data directories, by node; of an empty one nothing
	files    map[string]entry    // by path under root, and units by their absolute path
	agents   map[string]process
	watchers map[string]process
	units    map[string]map[string]string // of systemd, by name
}

// entry is a file, or a link.
type entry struct {
	data []byte
	link string
}

// process is one that runs.
type process struct {
	pid  int
	args []string
}

// The files of a node that a look reads.
var looked = []string{providers.AgentConfigFile, providers.NodeCertFile, providers.NodeKeyFile, providers.CACertFile, providers.ClusterKeyFile,
	providers.AgentLink, providers.PreviousLink, superviseFile, providers.AgentPIDFile, supervisorPID}

const unitDir = "/etc/systemd/system/"

// showProcess prints a process, where there is one.
const showProcess = `show() { # WORD PID
	[ -r "/proc/$2/stat" ] && read -r s 2>/dev/null <"/proc/$2/stat" || return 0
	echo "$1 $2 $s"
	tr '\000\n' '\037 ' 2>/dev/null <"/proc/$2/cmdline"
	echo
}
`

// seeable ends the script, unless a path that can't be seen is surely not there: a
// directory above it may not be looked into, a file system may not answer, and a
// link may lead to a disk that isn't mounted. None of that is a node that is gone.
const seeable = `seeable() { # PATH, absolute
	a=$1 c=
	while ! [ -e "$a" ]; do
		[ ! -L "$a" ] || { echo "$a is a link to what isn't there" >&2; exit 1; }
		c=${a##*/} a=${a%/*}
		a=${a:-/}
	done
	if [ -d "$a" ] && [ -x "$a" ]; then
		ls -a "$a" 2>/dev/null | grep -qxF -e "$c" || return 0
		echo "$1 can't be looked at: $a has $c, which can't be read" >&2
	else
		echo "$1 can't be looked at: $a: permission denied, or no directory" >&2
	fi
	exit 1
}
`

func (h *host) lookScript() string {
	var b strings.Builder
	b.WriteString("umask 077\n" + showProcess + seeable)
	// Every process costs a host that has fifty neighbours: who works there comes from /proc.
	b.WriteString(`u= y=
while read -r k v w z; do [ "$k" != Uid: ] || { u=$w; break; }; done 2>/dev/null </proc/self/status
[ ! -d /run/systemd/system ] || ! command -v systemctl >/dev/null || y=systemd
echo facts $(uname -s -m) ${u:-$(id -u)} $y
`)
	b.WriteString("command -v tar >/dev/null || { echo 'there is no tar' >&2; exit 1; }\n")
	fmt.Fprintf(&b, "top=%s\nif ! [ -e \"$top\" ]; then seeable \"$top\"; echo TAR; exit 0; fi\ncd \"$top\" || exit 1\n", quote(h.root))
	fmt.Fprintf(&b, `set --
for d in %[1]s %[2]s; do if [ -e $d ]; then set -- "$@" $d/; else seeable "$top/$d"; fi; done
[ $# = 0 ] || ls "$@" >/dev/null || exit 1
for f in %[1]s/*; do [ -f "$f" ] && echo "program ${f##*/}"; done
set --
units=
for d in %[2]s/*; do
	if [ ! -d "$d" ]; then [ -e "$d" ] || [ "$d" = '%[2]s/*' ] || seeable "$top/$d"; continue; fi
	cd "$d" && [ -r . ] && cd "$top" || { echo "$top/$d: permission denied" >&2; exit 1; }
	n=${d##*/}
	echo "node $n"
	for f in %[3]s; do
		if [ -f "$d/$f" ] || [ -L "$d/$f" ]; then set -- "$@" "$d/$f"; fi
	done
	u=clusterplan-$n%[4]s.service
	units="$units $u" # one whose file is gone may run on
	if [ -f %[5]s"$u" ]; then set -- "$@" %[5]s"$u"; fi
	p=; [ -f "$d/%[6]s" ] && read -r p <"$d/%[6]s"
	[ -n "$p" ] && show "agent $n" "$p"
	p=; [ -f "$d/%[7]s" ] && read -r p <"$d/%[7]s"
	[ -n "$p" ] && show "watcher $n" "$p"
	for f in "$d"/%[8]s/*; do [ ! -e "$f" ] || echo "data $n ${f##*/}"; done
done
for f; do echo "file $f"; done
if [ -n "$units" ] && [ -d /run/systemd/system ]; then
	echo units
	systemctl show -p Id -p ActiveState -p UnitFileState -p MainPID $units
	echo
fi
echo TAR
[ $# = 0 ] || tar -cf - "$@" 2>/dev/null || :
`, providers.BinDir, providers.NodesDir, strings.Join(looked, " "), suffix(h.root), unitDir, providers.AgentPIDFile, supervisorPID, providers.DataDirName)
	return b.String()
}

// looks is how many times a host is looked at that changes meanwhile.
const looks = 3

var errUnread = errors.New("is there and could not be read")

// look is what is there, read once.
func (h *host) look(ctx context.Context) (*look, error) {
	h.looking.Lock()
	defer h.looking.Unlock()
	if h.seen != nil {
		return h.seen, ctx.Err()
	}
	var (
		l *look
		f facts
	)
	for try := 1; ; try++ {
		out, err := h.run(ctx, h.lookScript())
		if err == nil {
			if l, f, err = parseLook(out); err == nil {
				break
			}
			err = fmt.Errorf("%s: what the host told can't be read: %w", h.conn, err)
		}
		// A script whose connection was lost may still be at work there: what is listed
		// and then gone is soon gone from the list too.
		var failed *scriptError
		if try == looks || !errors.Is(err, errUnread) && !errors.As(err, &failed) {
			return nil, err
		}
	}
	h.mu.Lock()
	h.facts = &f
	h.mu.Unlock()
	h.seen, h.used = l, false
	return l, nil
}

// changed forgets what was read.
func (h *host) changed() {
	h.looking.Lock()
	defer h.looking.Unlock()
	h.seen = nil
}

// noted changes what was read as the host was changed.
func (h *host) noted(change func(l *look)) {
	h.looking.Lock()
	defer h.looking.Unlock()
	if h.seen != nil {
		change(h.seen)
	}
}

// architectures are Go's names of what uname -m says.
var architectures = map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv6l": "arm", "armv7l": "arm",
	"i386": "386", "i686": "386", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}

func parseLook(out []byte) (*look, facts, error) {
	l := &look{data: map[string][]string{}, files: map[string]entry{}, agents: map[string]process{}, watchers: map[string]process{}, units: map[string]map[string]string{}}
	var f facts
	head, rest, ok := bytes.Cut(out, []byte("\nTAR\n"))
	if !ok {
		return nil, f, errors.New("it ends too early")
	}
	lines := strings.Split(string(head), "\n")
	var there []string
	inUnits := false
	var unit map[string]string
	for i := 0; i < len(lines); i++ {
		word, value, _ := strings.Cut(lines[i], " ")
		if inUnits {
			k, v, ok := strings.Cut(lines[i], "=")
			switch {
			case !ok:
				unit = nil
			case unit == nil:
				unit = map[string]string{k: v}
			default:
				unit[k] = v
			}
			if k == "Id" {
				l.units[v] = unit
			}
			continue
		}
		switch word {
		case "facts":
			w := strings.Fields(value)
			if len(w) < 3 {
				return nil, f, fmt.Errorf("%q says neither system nor user", value)
			}
			if w[0] != "Linux" {
				return nil, f, fmt.Errorf("it runs %s; nodes are on Linux", w[0])
			}
			f.arch, f.root, f.systemd = architectures[w[1]], w[2] == "0", len(w) > 3
			if f.arch == "" {
				f.arch = w[1]
			}
		case "program":
			l.programs = append(l.programs, value)
		case "node":
			l.nodes = append(l.nodes, value)
		case "data":
			name, file, _ := strings.Cut(value, " ")
			l.data[name] = append(l.data[name], file)
		case "agent", "watcher":
			name, stat, _ := strings.Cut(value, " ")
			args := ""
			if i+1 < len(lines) {
				i++
				args = lines[i]
			}
			if p, ok := parseProcess(stat, args); ok {
				into := l.agents
				if word == "watcher" {
					into = l.watchers
				}
				into[name] = p
			}
		case "file":
			there = append(there, value)
		case "units":
			inUnits = true
		}
	}
	slices.Sort(l.programs)
	slices.Sort(l.nodes)
	r := tar.NewReader(bytes.NewReader(rest))
	for len(rest) > 0 {
		hd, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, f, err
		}
		e := entry{link: hd.Linkname}
		if hd.Typeflag == tar.TypeReg {
			if e.data, err = io.ReadAll(r); err != nil {
				return nil, f, err
			}
		}
		name := path.Clean(hd.Name)
		if strings.HasPrefix(name, unitDir[1:]) {
			name = "/" + name
		}
		if hd.Typeflag == tar.TypeLink { // the same file once more
			e = l.files[path.Clean(hd.Linkname)]
		}
		l.files[name] = e
	}
	for _, name := range there { // one that can't be read is not one that is gone
		_, ok := l.files[path.Clean(name)]
		if passing := strings.HasSuffix(name, "/"+providers.AgentPIDFile) || strings.HasSuffix(name, "/"+supervisorPID); !ok && !passing {
			return nil, f, fmt.Errorf("%s %w", name, errUnread)
		}
	}
	return l, f, nil
}

// parseProcess reads "PID STAT" and the arguments; false: it has ended.
func parseProcess(stat, args string) (process, bool) {
	number, stat, _ := strings.Cut(stat, " ")
	pid, err := strconv.Atoi(number)
	// pid (comm) state ...: comm may hold anything, so from its last ).
	i := strings.LastIndexByte(stat, ')')
	if err != nil || i < 0 || len(stat) < i+3 || stat[i+2] == 'Z' || stat[i+2] == 'X' {
		return process{}, false
	}
	return process{pid: pid, args: strings.Split(strings.TrimSuffix(args, "\037"), "\037")}, true
}

// isAgent tells whether p is the agent of the node directory abs.
func (p process) isAgent(abs string) bool {
	i := slices.Index(p.args, "agent")
	return i >= 1 && i+2 < len(p.args) && p.args[i+1] == "--dir" && path.Clean(p.args[i+2]) == abs
}

// isSupervisor tells whether p keeps the agent of abs running.
func (p process) isSupervisor(abs string) bool {
	return len(p.args) == 2 && p.args[1] == path.Join(abs, superviseFile)
}

// known tells whether a look reads the path, and gives what it read.
func (l *look) known(name string) (entry, bool, error) {
	parts := strings.Split(name, "/")
	if len(parts) < 3 || parts[0] != providers.NodesDir || !slices.Contains(looked, strings.Join(parts[2:], "/")) {
		return entry{}, false, nil
	}
	e, ok := l.files[name]
	if !ok {
		return e, true, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return e, true, nil
}
