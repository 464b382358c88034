package command

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what a person has, and what a program has.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	fail(err)
	person = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { person.Close() })
	fail(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	fail(err)
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	fail(err)
	t.Cleanup(func() { program.Close() })
	return person, program
}

// On a terminal the console asks, completes, goes on after an error, and leaves
// the terminal as it was.
func TestConsoleOnATerminal(t *testing.T) {
	dir := t.TempDir()
	src := "cluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"alone\" {\n  provider = local\n  zone     = \"east\"\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	person, program := terminal(t)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	screen := make(chan string, 1000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			if err != nil {
				close(screen)
				return
			}
			screen <- string(buf[:n])
		}
	}()
	var seen string
	wait := func(want string) {
		t.Helper()
		limit := time.After(30 * time.Second)
		for !strings.Contains(seen, want) {
			select {
			case more, ok := <-screen:
				if seen += more; !ok {
					t.Fatalf("the terminal is closed; seen:\n%s", seen)
				}
			case <-limit:
				t.Fatalf("no %q; seen:\n%s", want, seen)
			}
		}
		_, seen, _ = strings.Cut(seen, want)
	}
	say := func(keys string) {
		t.Helper()
		if _, err := person.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- Main([]string{"console", "--no-color", "--dir", dir}, program, program, &errs) }()
	wait("> ")
	say("node.al\t.zone\r")
	wait("node.alone.zone")
	wait("\"east\"")
	wait("> ")
	say("nodes.alone\r")
	wait("> ")
	say("cidrh\t\"10.0.0.0/24\", 5)\r")
	wait("\"10.0.0.5\"")
	wait("> ")
	say("\x04") // Ctrl-D
	select {
	case got := <-code:
		if got != 0 {
			t.Errorf("exit code %d", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it doesn't end")
	}
	if !strings.Contains(errs.String(), "Nothing is called \"nodes\"") {
		t.Errorf("the error is not told: %s", errs.String())
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Errorf("the terminal is left as %+v, was %+v", after, before)
	}
}
