// Package sshlab makes hosts with OpenSSH's real server on one machine, for
// tests, benches and examples: each has process ids, mounts and a name of its
// own, with its own /run, /var/lib and /etc/systemd/system, and, where it is
// given one, a network namespace (internal/netlab). To end a host ends all that
// runs on it, as pulling its plug would; what it has on disk stays in its
// directory.
//
// It needs root and OpenSSH's server, and talks to nobody.
package sshlab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

const server = "/usr/sbin/sshd"

// Allowed is nil where this process can make such hosts.
func Allowed() error {
	if err := netlab.Allowed(); err != nil {
		return err
	}
	if _, err := os.Stat(server); err != nil {
		return errors.New("OpenSSH's server is not installed (apt-get install openssh-server)")
	}
	return nil
}

// Lab is some hosts that one key opens.
type Lab struct {
	Dir   string
	Hosts []*Host
}

// New makes a lab in a directory, with the key to log in with.
func New(dir string) (*Lab, error) {
	l := &Lab{Dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	pub, err := newKey(l.KeyFile())
	if err != nil {
		return nil, err
	}
	return l, errors.Join(os.WriteFile(filepath.Join(dir, "authorized_keys"), pub, 0o644), os.WriteFile(l.KnownHosts(), nil, 0o644))
}

// KeyFile is root's private key, which every host takes.
func (l *Lab) KeyFile() string { return filepath.Join(l.Dir, "id") }

// KnownHosts is a known_hosts file with all hosts.
func (l *Lab) KnownHosts() string { return filepath.Join(l.Dir, "known_hosts") }

func newKey(file string) (public []byte, err error) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, err
	}
	return ssh.MarshalAuthorizedKey(key), nil
}

// Host is one of them.
type Host struct {
	Name      string
	Address   string
	Port      int
	Namespace string   // of the network; "": this machine's
	Dir       string   // what it has on disk: lib is its /var/lib, units its /etc/systemd/system
	Config    []string // lines of its sshd_config, before the others

	lab *Lab
	key string
	cmd *exec.Cmd
}

// Add makes a host and starts it.
func (l *Lab) Add(name, namespace, address string, port int, config ...string) (*Host, error) {
	h := &Host{Name: name, Address: address, Port: port, Namespace: namespace, Dir: filepath.Join(l.Dir, name), Config: config, lab: l}
	for _, d := range []string{"lib", "units"} {
		if err := os.MkdirAll(filepath.Join(h.Dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	pub, err := newKey(filepath.Join(h.Dir, "hostkey"))
	if err != nil {
		return nil, err
	}
	h.key = strings.TrimSpace(string(pub))
	known := address
	if port != 22 {
		known = fmt.Sprintf("[%s]:%d", address, port)
	}
	f, err := os.OpenFile(l.KnownHosts(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(f, known, h.key)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	l.Hosts = append(l.Hosts, h)
	return h, h.Start()
}

// Key is the host's public key.
func (h *Host) Key() string { return h.key }

// boot is what a host does before it serves.
const boot = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/lock
mount --bind "$1/lib" /var/lib
[ ! -d /etc/systemd/system ] || mount --bind "$1/units" /etc/systemd/system
hostname "$2"
exec ` + server + ` -D -f "$1/sshd_config" -E "$1/log"
`

// Start starts a host that is down.
func (h *Host) Start() error {
	lines := append(append([]string(nil), h.Config...),
		fmt.Sprintf("Port %d", h.Port), "ListenAddress "+h.Address, "HostKey "+h.Dir+"/hostkey", "PidFile none",
		"AuthorizedKeysFile "+h.lab.Dir+"/authorized_keys", "StrictModes no", "PasswordAuthentication no",
		"SetEnv SHLVL=1", // else bash runs the ~/.bashrc of who runs the test, which may wait for anything
		"KbdInteractiveAuthentication no", "UsePAM no", "UseDNS no", "PermitRootLogin prohibit-password",
		"Subsystem sftp internal-sftp") // as Debian has it; Ansible copies with it
	if err := os.WriteFile(filepath.Join(h.Dir, "sshd_config"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", boot, "sh", h.Dir, h.Name)
	log, err := os.Create(filepath.Join(h.Dir, "boot.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS}
	start := cmd.Start
	if h.Namespace != "" {
		start = func() error { return netlab.Start(h.Namespace, cmd) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start host %s: %w", h.Name, err)
	}
	h.cmd = cmd
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := h.Connect("tcp", net.JoinHostPort(h.Address, fmt.Sprint(h.Port)))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			return errors.Join(fmt.Errorf("host %s serves no SSH: %w: %s", h.Name, err, text), h.Stop())
		}
	}
}

// Connect connects to an address as the host sees the network.
func (h *Host) Connect(network, address string) (c net.Conn, err error) {
	if h.Namespace == "" {
		return net.DialTimeout(network, address, time.Second)
	}
	err = netlab.Do(h.Namespace, func() error {
		c, err = (&net.Dialer{Timeout: time.Second}).Dial(network, address)
		return err
	})
	return c, err
}

// Stop pulls the host's plug: the kernel kills all processes with the first.
func (h *Host) Stop() error {
	if h.cmd == nil {
		return nil
	}
	cmd := h.cmd
	h.cmd = nil
	err := cmd.Process.Kill()
	_ = cmd.Wait() // killed
	return err
}

// PID is the host's first process, as this machine has it; 0: it is down.
func (h *Host) PID() int {
	if h.cmd == nil {
		return 0
	}
	return h.cmd.Process.Pid
}

// Processes are the command lines of all that runs on the host, by the process
// ids that this machine has for them, but for the SSH server's.
func (h *Host) Processes() (map[int]string, error) {
	all := map[int]string{}
	if h.cmd == nil {
		return all, nil
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", h.PID()))
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if ns, err := os.Readlink(d + "/ns/pid"); err != nil || ns != own {
			continue
		}
		line, err := os.ReadFile(d + "/cmdline")
		if text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")); err == nil && text != "" && !strings.HasPrefix(text, "sshd:") && !strings.HasPrefix(text, server) {
			var pid int
			fmt.Sscan(filepath.Base(d), &pid)
			all[pid] = text
		}
	}
	return all, nil
}

// Close ends all hosts.
func (l *Lab) Close() error {
	var err error
	for _, h := range l.Hosts {
		err = errors.Join(err, h.Stop())
	}
	return err
}
