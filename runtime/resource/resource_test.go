package resource

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// fakeHost is a monitor of func fields.
type fakeHost struct {
	guard func(Program) (Guarded, error)
	run   func(context.Context, Program) error
	hold  func(Address) (HeldAddress, error)
}

func (h fakeHost) Guard(_ context.Context, p Program) (Guarded, error) { return h.guard(p) }
func (h fakeHost) Run(ctx context.Context, p Program) error            { return h.run(ctx, p) }
func (h fakeHost) Undo(Program) (func() error, error)                  { return func() error { return nil }, nil }
func (h fakeHost) Tell(string)                                         {}
func (h fakeHost) Hold(_ context.Context, a Address) (HeldAddress, error) {
	return h.hold(a)
}

// fakeAddress is there until it is lost.
type fakeAddress struct {
	lost     chan struct{}
	err      error
	released int
}

func (a *fakeAddress) Lost() <-chan struct{} { return a.lost }
func (a *fakeAddress) Check() error          { return a.err }
func (a *fakeAddress) Release()              { a.released++ }

// fakeProcess obeys a stop signal if it is polite.
type fakeProcess struct {
	polite       bool
	exited, gone chan struct{}
	stops        []int
	killed       bool
	well         bool // it ends with status 0
}

func newFakeProcess(polite bool) *fakeProcess {
	return &fakeProcess{polite: polite, exited: make(chan struct{}), gone: make(chan struct{})}
}

func (p *fakeProcess) PID() int                { return 1 }
func (p *fakeProcess) Exited() <-chan struct{} { return p.exited }
func (p *fakeProcess) Gone() <-chan struct{}   { return p.gone }
func (p *fakeProcess) Well() bool              { return p.well }
func (p *fakeProcess) ExitError() error        { return errors.New("ended with exit status 3") }
func (p *fakeProcess) end()                    { close(p.exited); close(p.gone) }
func (p *fakeProcess) Kill()                   { p.killed = true; p.end() }
func (p *fakeProcess) Stop(signal int) {
	p.stops = append(p.stops, signal)
	if p.polite {
		p.end()
	}
}

func application(attributes map[string]any) spec.Resource {
	if attributes["command"] == nil {
		attributes["command"] = []any{"/bin/sh"}
	}
	return spec.Resource{Name: "app", Type: "generic_application", Attributes: attributes}
}

func TestAttributes(t *testing.T) {
	env := Env{Dir: "/node"}
	tests := []struct {
		name string
		r    spec.Resource
		want string // in the error; "": none
	}{
		{"least", application(map[string]any{}), ""},
		{"all", application(map[string]any{"environment": map[string]any{"A": "b"}, "directory": "/", "user": "root", "log_max_size": "1MiB",
			"log_keep": float64(2), "stop_signal": "INT", "stop_timeout": "5s"}), ""},
		{"nulls", application(map[string]any{"environment": nil, "user": nil}), ""},
		{"no command", spec.Resource{Name: "app", Type: "generic_application"}, "command is missing"},
		{"empty command", application(map[string]any{"command": []any{}}), "command is empty"},
		{"command of numbers", application(map[string]any{"command": []any{1.0}}), "command = [1] is no list of texts"},
		{"zero byte", application(map[string]any{"command": []any{"a", "b\x00"}}), "zero byte"},
		{"variable's name", application(map[string]any{"environment": map[string]any{"A=B": "c"}}), `"A=B" is no name of a variable`},
		{"size", application(map[string]any{"log_max_size": "big"}), `"big" is no size`},
		{"small size", application(map[string]any{"log_max_size": float64(5)}), "log_max_size = 5 bytes is too small"},
		{"keep", application(map[string]any{"log_keep": 1.5}), "log_keep = 1.5 is no whole number"},
		{"signal", application(map[string]any{"stop_signal": "BOOM"}), `stop_signal = "BOOM": use one of TERM`},
		{"time-out", application(map[string]any{"stop_timeout": "soon"}), `"soon" is no time span`},
		{"unknown", application(map[string]any{"colour": "red"}), "this version's generic_application has no attribute colour"},
		{"two at once", application(map[string]any{"colour": "red", "log_keep": true}), "log_keep = true is no whole number\n"},
		{"script", spec.Resource{Name: "s", Type: "script", Attributes: map[string]any{"start": []any{"a"}, "stop": []any{"b"}, "exclusive": true}}, ""},
		{"script without a start", spec.Resource{Name: "s", Type: "script", Attributes: map[string]any{"stop": []any{"b"}}}, "start is missing"},
		{"script with an empty stop", spec.Resource{Name: "s", Type: "script", Attributes: map[string]any{"start": []any{"a"}, "stop": []any{""}}}, "stop is empty"},
		{"script without time", spec.Resource{Name: "s", Type: "script", Attributes: map[string]any{"start": []any{"a"}, "stop_timeout": "0s"}}, "a stop needs time"},
		{"unknown type", spec.Resource{Name: "x", Type: "toaster"}, `no resource type "toaster"`},
		{"address", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "127.0.0.5/8"}}, ""},
		{"no address", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{}}, "address is missing"},
		{"bad address", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "localhost"}}, `address = "localhost" is no IP address`},
		{"long probe", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "10.0.0.1", "probe": "1m"}}, "probe = 1m0s: write 10s at most"},
		{"zone", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "fe80::1%eth0"}}, "is no IP address"},
		{"bad prefix", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "127.0.0.1/64"}}, `is no IP address`},
		{"two checks", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "127.0.0.5"},
			LooksAlive: spec.Poll{TCP: "127.0.0.5:1", HTTP: "http://127.0.0.5"}}, "looks_alive: command, tcp and http exclude each other"},
		{"bad tcp", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "127.0.0.5"},
			IsAlive: spec.Poll{TCP: "127.0.0.5"}}, `is_alive: tcp = "127.0.0.5" is no host:port`},
		{"bad http", spec.Resource{Name: "vip", Type: "ip_address", Attributes: map[string]any{"address": "127.0.0.5"},
			IsAlive: spec.Poll{HTTP: "127.0.0.5:80"}}, `is no URL`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(env, fakeHost{}, tt.r)
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("error %v, want %q in it", err, tt.want)
			case err != nil && !strings.HasPrefix(err.Error(), "resource "+tt.r.Name+": "):
				t.Fatalf("the error doesn't name the resource: %v", err)
			}
		})
	}
}

// Every type of the schema is implemented, and takes its schema's defaults.
func TestEveryType(t *testing.T) {
	required := map[string]any{"command": []string{"x"}, "address": "127.0.0.1", "start": []string{"x"}}
	for name, schema := range spec.ResourceTypes() {
		attributes := map[string]any{}
		for _, a := range schema.Attributes {
			if a.Required {
				attributes[a.Name] = required[a.Name]
			} else {
				attributes[a.Name] = a.Default
			}
		}
		if _, err := New(Env{}, fakeHost{}, spec.Resource{Name: "r", Type: name, Attributes: attributes}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An address in 127/8 needs nothing of the kernel; any other is held by the
// monitor from start to stop. It is online as soon as it is there.
func TestAddress(t *testing.T) { synctest.Test(t, testAddress) }

func testAddress(t *testing.T) {
	lost := errors.New("somebody took it away")
	for _, tt := range []struct {
		attributes map[string]any
		want       Address // zero: none is held
	}{
		{map[string]any{"address": "127.0.0.1"}, Address{}},
		{map[string]any{"address": "127.255.255.254/32"}, Address{}},
		{map[string]any{"address": "::ffff:127.0.0.1"}, Address{}},
		{map[string]any{"address": "10.0.0.1"}, Address{Address: netip.MustParseAddr("10.0.0.1"), Probe: 25 * time.Millisecond}},
		{map[string]any{"address": "fd00::1/64", "interface": "eth0", "probe": "0s"}, Address{Address: netip.MustParseAddr("fd00::1"), Bits: 64, Interface: "eth0"}},
	} {
		var asked Address
		held := &fakeAddress{lost: make(chan struct{})}
		host := fakeHost{hold: func(a Address) (HeldAddress, error) { asked = a; return held, nil }}
		r, err := New(Env{}, host, spec.Resource{Name: "vip", Type: "ip_address", Attributes: tt.attributes})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now() // by a clock that goes on only while all wait
		if err := r.Start(t.Context(), nil); err != nil || asked != tt.want {
			t.Errorf("%v: asked for %+v, %v, want %+v", tt.attributes, asked, err, tt.want)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("%v: what depends on it waits for %s though it is there", tt.attributes, waited)
		}
		if local := tt.want == (Address{}); local != (r.Exited() == nil) {
			t.Errorf("%v: an address in 127/8 can't be lost, any other can", tt.attributes)
		} else if !local {
			held.err = lost
			close(held.lost)
			<-r.Exited()
			if r.ExitError() != lost || r.LooksAlive(t.Context()) != lost {
				t.Errorf("%v: its loss isn't told", tt.attributes)
			}
		}
		r.Stop(t.Context(), func(err error) { t.Error(err) })
		if want := tt.want != (Address{}); want != (held.released == 1) {
			t.Errorf("%v: released %d times", tt.attributes, held.released)
		}
	}
}

// The states of a start that waits for its check, on a clock of its own.
func TestStartAwaitsCheck(t *testing.T) {
	tests := []struct {
		name    string
		healthy time.Duration // from then on the check passes
		exits   time.Duration // then the program ends; 0: never
		stopped time.Duration // then the start is given up; 0: never
		want    string        // the error; "": online
		at      time.Duration // when Start returns, at the earliest
		within  time.Duration // and how much later at most
	}{
		{"at once", 0, 0, 0, "", 0, 0},
		{"soon", 100 * time.Millisecond, 0, 0, "", 100 * time.Millisecond, 60 * time.Millisecond},
		{"late", 20 * time.Second, 0, 0, "", 20 * time.Second, 200 * time.Millisecond},
		{"never", time.Hour, 0, 0, "not online after 30s (pending_timeout); the last check: command sick: exit status 1", 30 * time.Second, 0},
		{"exits", time.Hour, 5 * time.Second, 0, "ended with exit status 3", 5 * time.Second, 0},
		{"stopped", time.Hour, 0, 5 * time.Second, "no longer wanted", 5 * time.Second, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := newFakeProcess(true)
				host := fakeHost{
					guard: func(Program) (Guarded, error) { return p, nil },
					run: func(context.Context, Program) error {
						if time.Since(began) < tt.healthy {
							return errors.New("exit status 1")
						}
						return nil
					},
				}
				r := application(map[string]any{})
				r.PendingTimeout = spec.Duration(30 * time.Second)
				r.LooksAlive.Command = []string{"sick"}
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "sick"), nil, 0o700); err != nil {
					t.Fatal(err)
				}
				res, err := New(Env{Dir: dir, BinDir: dir}, host, r)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.exits > 0 {
					time.AfterFunc(tt.exits, p.end)
				}
				if tt.stopped > 0 {
					time.AfterFunc(tt.stopped, func() { cancel(errors.New("no longer wanted")) })
				}
				var progress []string
				err = res.Start(ctx, func(s string) { progress = append(progress, s) })
				if waited := tt.healthy > 0; waited && !slices.Equal(progress, []string{"it runs; waiting for its check: command sick: exit status 1"}) || !waited && progress != nil {
					t.Errorf("progress %q", progress)
				}
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				if took := time.Since(began); took < tt.at || took > tt.at+tt.within {
					t.Errorf("took %s, want %s and at most %s more", took, tt.at, tt.within)
				}
			})
		})
	}
}

func TestStop(t *testing.T) {
	tests := []struct {
		name       string
		polite     bool
		attributes map[string]any
		patience   time.Duration
		stops      []int
		killed     bool
		took       time.Duration
	}{
		{"obeys", true, map[string]any{}, time.Hour, []int{15}, false, 0},
		{"own signal", true, map[string]any{"stop_signal": "INT"}, time.Hour, []int{2}, false, 0},
		{"hangs", false, map[string]any{"stop_timeout": "7s"}, time.Hour, []int{15}, true, 7 * time.Second},
		{"no time", false, map[string]any{}, time.Second, []int{15}, true, time.Second},
		{"by killing", false, map[string]any{"stop_signal": "KILL"}, time.Hour, nil, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFakeProcess(tt.polite)
				host := fakeHost{guard: func(Program) (Guarded, error) { return p, nil }}
				res, err := New(Env{Dir: t.TempDir()}, host, application(tt.attributes))
				if err != nil {
					t.Fatal(err)
				}
				if err := res.Start(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
				defer cancel()
				began := time.Now()
				res.Stop(ctx, func(err error) { t.Error(err) })
				if !slices.Equal(p.stops, tt.stops) || p.killed != tt.killed || time.Since(began) != tt.took {
					t.Errorf("signals %v, killed %v, took %s", p.stops, p.killed, time.Since(began))
				}
			})
		})
	}
}

func TestChecks(t *testing.T) {
	status := atomic.Int64{}
	status.Store(200)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/nowhere", http.StatusFound)
			return
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer web.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	open := strings.TrimPrefix(web.URL, "http://")

	ip := func(looks, is spec.Poll) *Resource {
		t.Helper()
		r, err := New(Env{Dir: "/"}, fakeHost{}, spec.Resource{Name: "vip", Type: "ip_address",
			Attributes: map[string]any{"address": "127.0.0.1"}, LooksAlive: looks, IsAlive: is})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	check := func(name string, err error, want string) {
		t.Helper()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	ctx := t.Context()
	check("no check", ip(spec.Poll{}, spec.Poll{}).IsAlive(ctx), "")
	check("open port", ip(spec.Poll{}, spec.Poll{TCP: open}).IsAlive(ctx), "")
	check("closed port", ip(spec.Poll{}, spec.Poll{TCP: closed.Addr().String()}).IsAlive(ctx), "tcp "+closed.Addr().String()+": connect: connection refused")
	check("http", ip(spec.Poll{}, spec.Poll{HTTP: web.URL}).IsAlive(ctx), "")
	check("redirect", ip(spec.Poll{}, spec.Poll{HTTP: web.URL + "/redirect"}).IsAlive(ctx), "")
	check("slow", ip(spec.Poll{}, spec.Poll{HTTP: web.URL + "/slow", Timeout: spec.Duration(50 * time.Millisecond)}).IsAlive(ctx), "no answer within 50ms")
	status.Store(503)
	check("status", ip(spec.Poll{}, spec.Poll{HTTP: web.URL}).IsAlive(ctx), "http "+web.URL+": answered 503 Service Unavailable")
	// looks_alive doesn't use is_alive's check; is_alive falls back on looks_alive's.
	check("looks alone", ip(spec.Poll{}, spec.Poll{HTTP: web.URL}).LooksAlive(ctx), "")
	check("second opinion", ip(spec.Poll{HTTP: web.URL}, spec.Poll{}).IsAlive(ctx), "answered 503")
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "data": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=/no/such:" + dir}
	for name, want := range map[string]string{"tool": filepath.Join(dir, "tool"), "./tool": filepath.Join(dir, "tool"), filepath.Join(dir, "tool"): filepath.Join(dir, "tool")} {
		if got, err := lookPath(name, env, dir); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"data":   "permission denied",
		"./data": "permission denied",
		"none":   `command not found: "none" is in no directory of PATH (/no/such:` + dir + ")",
		"./none": "command not found: " + dir + "/none",
		"/":      "is a directory",
	} {
		if _, err := lookPath(name, env, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"app":        "/n/log/web/app.log",
		"../../x":    "/n/log/web/%2E.%2F..%2Fx.log",
		`a["b/c"]`:   `/n/log/web/a["b%2Fc"].log`,
		"100%2Fsure": "/n/log/web/100%252Fsure.log",
	} {
		if got := LogFile("/n", "web", name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	t.Setenv("SECRET", "agent's own")
	t.Setenv("TZ", "UTC")
	env := Env{Cluster: "c", Node: "n", Group: "g", Epoch: 7, BinDir: "/b", Socket: "/s"}.environ("r", map[string]string{"A": "1", "CLUSTERPLAN_EPOCH": "9", "PATH": "/p"})
	for _, want := range []string{"A=1", "CLUSTERPLAN_EPOCH=7", "PATH=/b:/p", "TZ=UTC", "CLUSTERPLAN_NODE=n"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %v", want, env)
		}
	}
	for _, e := range env {
		if strings.HasPrefix(e, "SECRET=") {
			t.Error("the agent's environment leaks")
		}
	}
}
