// Package libvirtlab gives a test a libvirtd of its own, with real machines, on
// this machine: in namespaces of its own for processes, mounts and network, with
// its own directories, sockets, users and bridges. Nothing of this machine's is
// touched, several run side by side, and when the test's process ends the kernel
// ends libvirtd, its machines and its networks with it.
//
// Run runs the calling test again, in there, with the lab. Tiny makes a guest
// that boots in seconds.
package libvirtlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Lab is a libvirtd.
type Lab struct {
	URI string // of machines under QEMU
	Dir string // scratch

	t      *testing.T
	daemon *exec.Cmd
}

// inside names the scratch directory to the test that runs in the namespaces.
const inside = "CLUSTERPLAN_LIBVIRTLAB"

// Needs are the programs that a lab needs, and the Debian packages with them.
var Needs = map[string]string{
	"libvirtd":           "libvirt-daemon, libvirt-daemon-driver-qemu",
	"qemu-system-x86_64": "qemu-system-x86",
	"qemu-img":           "qemu-utils",
	"dnsmasq":            "dnsmasq-base",
	"iptables":           "iptables",
}

// Run has the calling test run once more, in namespaces of its own, and f there
// with a lab, beside other tests. It has to be the first that a test does. It skips
// the test where programs or rights are missing, and says which.
func Run(t *testing.T, f func(t *testing.T, lab *Lab)) {
	t.Helper()
	if dir := os.Getenv(inside); dir != "" {
		f(t, start(t, dir))
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a libvirtd of its own needs root")
	}
	for program, pkg := range Needs {
		if _, err := exec.LookPath(program); err != nil {
			if _, err := os.Stat("/usr/sbin/" + program); err != nil {
				t.Skipf("%s is missing (Debian: %s)", program, pkg)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "cplv") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	left := "10m"
	if end, ok := t.Deadline(); ok {
		left = (time.Until(end) * 9 / 10).Round(time.Second).String() // it tells where it hangs
	}
	runtime.LockOSThread() // the child dies with this thread
	defer runtime.UnlockOSThread()
	// The shell is the namespace's first process: it reaps what has lost its parent,
	// which libvirtd waits for.
	cmd := exec.Command("/bin/sh", "-c", `"$@"; exit $?`, "sh", self, "-test.run=^"+t.Name()+"$", "-test.v=true", "-test.timeout="+left)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EINVAL):
		t.Skipf("this machine allows no namespaces: %v", err)
	case err != nil:
		t.Fatalf("in the namespaces: %v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("the test has not run in the namespaces:\n%s", out)
	}
	t.Logf("in the namespaces:\n%s", out)
}

// start is in the namespaces: makes the places that libvirtd uses and starts it.
func start(t *testing.T, dir string) *Lab {
	t.Helper()
	lab := &Lab{URI: "qemu:///system", Dir: dir, t: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	must(syscall.Mount("proc", "/proc", "proc", 0, ""))
	must(exec.Command("ip", "link", "set", "lo", "up").Run())
	for _, at := range []string{"/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"} {
		must(place(dir, at))
	}
	must(users(dir))
	must(os.WriteFile("/etc/libvirt/qemu.conf", []byte(`user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
`), 0o600))
	must(os.WriteFile("/etc/libvirt/libvirtd.conf", []byte(`auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
`), 0o600))
	lab.StartDaemon()
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile("/var/log/libvirt/libvirtd.log") // what there is
			t.Logf("libvirtd's log:\n%s", errorLines(string(b)))
		}
	})
	return lab
}

// place puts a directory of the lab's over one of this machine's, which is made
// first where it isn't there: empty, for all to use.
func place(dir, at string) error {
	own := filepath.Join(dir, strings.ReplaceAll(strings.Trim(at, "/"), "/", "-"))
	if err := errors.Join(os.MkdirAll(own, 0o755), os.MkdirAll(at, 0o755)); err != nil {
		return err
	}
	return syscall.Mount(own, at, "", syscall.MS_BIND, "")
}

// users has libvirtd find the user and groups that it can't start without.
func users(dir string) error {
	for file, lines := range map[string][]string{
		"/etc/passwd": {"libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin"},
		"/etc/group":  {"libvirt-qemu:x:64055:", "kvm:x:64056:"},
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text := strings.TrimRight(string(b), "\n") + "\n"
		for _, line := range lines {
			name, _, _ := strings.Cut(line, ":")
			if !strings.Contains("\n"+text, "\n"+name+":") {
				text += line + "\n"
			}
		}
		own := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(own, file, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// StartDaemon starts libvirtd and waits until it answers.
func (lab *Lab) StartDaemon(args ...string) {
	lab.t.Helper()
	// Its lock lies in /run by itself, where another lab's, or this machine's, holds it.
	lab.daemon = exec.Command("libvirtd", append([]string{"-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"}, args...)...)
	lab.daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := lab.daemon.Start(); err != nil {
		lab.t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := exec.Command("virsh", "-c", lab.URI, "list").Run() // "version" would want QEMU
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			lab.t.Fatalf("libvirtd does not answer: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// StopDaemon kills libvirtd as a crash would; machines go on.
func (lab *Lab) StopDaemon() {
	lab.t.Helper()
	if err := lab.daemon.Process.Kill(); err != nil {
		lab.t.Fatal(err)
	}
	_ = lab.daemon.Wait() // killed
}

// Virsh runs virsh and gives what it prints.
func (lab *Lab) Virsh(args ...string) string {
	lab.t.Helper()
	out, err := exec.Command("virsh", append([]string{"-q", "-c", lab.URI}, args...)...).CombinedOutput()
	if err != nil {
		lab.t.Fatalf("virsh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// errorLines are the errors of a libvirtd's log, without what it says of a
// machine that is a container.
func errorLines(log string) string {
	var out []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, " error :") && !strings.Contains(line, "ethtool") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return fmt.Sprint(strings.Join(out[max(0, len(out)-20):], "\n"))
}
