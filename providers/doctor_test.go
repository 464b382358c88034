package providers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// The script runs on real shells, busybox's too, and what they print is read.
func TestFactsOfShells(t *testing.T) {
	w := wants{fence: []string{"fence_'none", "/usr/bin/env"}, programs: map[string]string{"/bin/sh": "x", "/it's/none": "y"},
		devices: []string{"/dev/null", "/dev/none"}}
	script := w.script("/no/such/directory/at all")
	for _, shell := range [][]string{{"/bin/sh"}, {"busybox", "sh"}, {"bash", "--posix"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			continue
		}
		cmd := exec.Command(shell[0], shell[1:]...)
		cmd.Stdin = strings.NewReader(script)
		before := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", shell, err, out)
		}
		f, err := parseFacts(string(out))
		if err != nil {
			t.Fatalf("%s: %v\n%s", shell, err, out)
		}
		if f.system != "Linux" || len(f.places) != 1 || f.places[0].dir != "/" || f.places[0].free <= 0 || !slices.Contains(f.places[0].options, "rw") || f.uid < 0 || f.kernel == "" {
			t.Errorf("%s: %+v\n%s", shell, f, out)
		}
		if s := f.clock.span(before, time.Now()); s.known && s.off() != 0 {
			t.Errorf("%s: this machine's clock is %v off itself", shell, s)
		}
		for name, want := range map[string]bool{"/usr/bin/env": true, "/bin/sh": true, "/dev/null": true, "fence_'none": false, "/it's/none": false, "/dev/none": false} {
			if f.has[name] != want {
				t.Errorf("%s: has %s is %v", shell, name, !want)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	good := "clock 1700000000.000000000\nsystem Linux\nkernel 6.1\nuid 0\nplace /var\noptions rw,nodev\nfree 99999999\ninodes 5000\nsystemd 252\nmemlock 8192\nhas /dev/net/tun\nhas /dev/watchdog\nhas fence_x\nhas /bin/a\nhas /proc/sysrq-trigger\nend\n"
	w := wants{fence: []string{"fence_x"}, programs: map[string]string{"/bin/a": "group.g.resource.a"}, devices: []string{"/dev/watchdog"}, tun: true, reset: true}
	for _, test := range []struct{ change, to, want string }{
		{"", "", ""},
		{"Linux", "FreeBSD", "fail system"},
		{"free 99999999", "free 80000", "fail disk"},
		{"free 99999999", "free 900000", "warn disk"},
		{"free 99999999", "free ", "warn disk"},
		{"inodes 5000", "inodes 63", "fail inodes"},
		{"inodes 5000", "inodes 999", "warn inodes"},
		{"inodes 5000", "inodes ", ""},
		{"rw,nodev", "rw,noexec,nodev", ""},
		{"systemd 252", "bin /var\nmounted rw,noexec,nodev", "fail programs"},
		{"rw,nodev\nfree 99999999", "ro,nodev\nfree 5", "fail disk"},
		{"systemd 252", "place /var/nodes\noptions rw,noexec\nfree 80000", "warn disk"},
		{"systemd 252", "place /var/nodes\noptions ro", "fail disk"},
		{"has /dev/net/tun", "", "fail addresses"},
		{"has /dev/watchdog", "", "fail watchdog"},
		{"has fence_x", "", "fail fence agent"},
		{"has /bin/a", "", "warn program"},
		{"has /proc/sysrq-trigger", "", "fail reset"},
		{"uid 0", "uid 1000", "fail rights, fail addresses, fail watchdog"},
		{"uid 0\nplace /var\noptions rw,nodev\nfree 99999999\ninodes 5000\nsystemd 252\nmemlock 8192", "uid 9\nplace /var\nwritable yes\nfree 99999999\nmemlock 64", "warn memory lock, fail addresses, fail watchdog"},
		{"end\n", "", "no answer"},
	} {
		f, err := parseFacts(strings.Replace(good, test.change, test.to, 1))
		if err != nil {
			if test.want != "no answer" {
				t.Errorf("%s: %v", test.to, err)
			}
			continue
		}
		var got []string
		judge(f, w, roomForData+20<<20, func(check, level, what, advice string) {
			if level != LevelOK {
				got = append(got, level+" "+check)
				if advice == "" && f.places[0].free >= 0 {
					t.Errorf("%s: no advice for %s: %s", test.to, check, what)
				}
			}
		})
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %q, want %q", test.to, got, test.want)
		}
	}
}

func TestClocks(t *testing.T) {
	at := func(name string, ahead, unsure time.Duration) *patient {
		return &patient{name: name, nodes: []examinee{{Examinee: Examinee{Addr: addr.Address{Type: "node", Name: name}}}},
			ahead: clockSpan{known: true, from: ahead - unsure, to: ahead + unsure}}
	}
	for _, test := range []struct {
		a, b time.Duration
		want string
	}{
		{0, 0, "ok as one"},
		{0, time.Second, "ok b is 800ms ahead of a"},
		{-time.Minute, 2 * time.Second, "warn b is 1m2s ahead of a"},
		{time.Hour, 0, "fail a is 1h0m0s ahead of b"},
	} {
		got := clocks([]*patient{at("a", test.a, 100*time.Millisecond), {name: "unknown"}, at("b", test.b, 100*time.Millisecond)})
		if len(got) != 1 || fmt.Sprintf("%s %s", got[0].Level, got[0].Found) != test.want || len(got[0].Objects) != 2 {
			t.Errorf("%+v, want %s", got, test.want)
		}
	}
	if got := clocks([]*patient{at("a", time.Hour, 0)}); got != nil {
		t.Errorf("one host: %+v", got)
	}
	var said string
	clock(at("a", -5*time.Minute, time.Second).ahead, func(_, level, what, _ string) { said = level + " " + what })
	if said != "fail 4m59s from this machine's: certificates that are made here are not valid there" {
		t.Error(said)
	}
}

func FuzzFacts(f *testing.F) {
	f.Add("clock 1.5\nsystem Linux\nuid 0\nfree 9223372036854775807\nend\n")
	f.Add("clock 99999999999999999999.000000000\nend")
	f.Fuzz(func(t *testing.T, text string) {
		facts, err := parseFacts(text)
		if err != nil {
			return
		}
		facts.clock.span(time.Now(), time.Now())
		judge(facts, wants{tun: true}, 1, func(check, level, what, _ string) {
			if check == "" || level == "" || what == "" {
				t.Errorf("%q %q %q", check, level, what)
			}
		})
	})
}

// prober is a host that is only asked for its name.
type prober struct{ Host }

func (prober) ProbeName() string                             { return "h:22" }
func (prober) Probe(context.Context, string) ([]byte, error) { return nil, nil }

// That a host could not be reached is true for a moment only: a person who is asked
// whether to apply may switch it on first.
func TestUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Nodes{}
		p.reached(prober{}, fmt.Errorf("can't connect: %w", ErrUnreachable))
		if err := p.unheard(prober{}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("right after the look: %v", err)
		}
		time.Sleep(6 * time.Second)
		if err := p.unheard(prober{}); err != nil {
			t.Errorf("after a while: %v", err)
		}
	})
}
