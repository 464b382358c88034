package fence

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Machines of a real libvirtd are turned off, and asked whether they are; one
// that isn't there, or a libvirtd that doesn't answer, proves nothing.
func TestMachines(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		const uri = "test:///default"
		c, err := libvirtconn.New(libvirtconn.Config{URI: uri}) // the test driver forgets all when nobody is connected
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ask := func(call func(l *libvirt.Libvirt) error) {
			t.Helper()
			if err := c.Do(t.Context(), "ask", call); err != nil {
				t.Fatal(err)
			}
		}
		state := func() (s libvirt.DomainState) {
			t.Helper()
			ask(func(l *libvirt.Libvirt) error {
				dom, err := l.DomainLookupByName("test")
				if err != nil {
					return err
				}
				got, _, err := l.DomainGetState(dom, 0)
				s = libvirt.DomainState(got)
				return err
			})
			return s
		}
		if state() != libvirt.DomainRunning { // and connects
			t.Fatal("the test driver's machine does not run")
		}
		device := func(uri, action string) []spec.Fence {
			return []spec.Fence{{ID: "f", Name: "hypervisor", Agent: spec.FenceLibvirt, Action: action, Timeout: spec.Duration(20 * time.Second),
				Plugs: map[string]string{"n2": "test", "n4": "gone"}, Parameters: map[string]string{spec.FenceLibvirtURI: uri}}}
		}
		r := New(Config{Again: 20 * time.Millisecond})
		run := func(node, uri, action string) Result {
			return r.Run(t.Context(), Job{Node: "id of " + node, Name: node, Levels: [][]spec.Fence{device(uri, action)}})
		}
		if res := run("n2", uri, spec.FenceReboot); !res.OK || res.Uses[0].Err != "" || state() != libvirt.DomainRunning {
			t.Errorf("reboot: %+v, and it is %v", res, state())
		}
		for range 2 { // the second time it is off already
			if res := run("n2", uri, spec.FenceOff); !res.OK || state() != libvirt.DomainShutoff {
				t.Errorf("off: %+v, and it is %v", res, state())
			}
		}
		// A transient machine is gone when it is off.
		ask(func(l *libvirt.Libvirt) error {
			_, err := l.DomainCreateXML(`<domain type="test"><name>gone</name><memory>1024</memory><os><type>hvm</type></os></domain>`, 0)
			return err
		})
		if res := run("n4", uri, spec.FenceOff); !res.OK {
			t.Errorf("a transient machine: %+v", res)
		}
		for node, want := range map[string]string{"n3": `has no machine "n3"; name the node's machine in plugs`, "n4": `has no machine "gone"`} {
			if res := run(node, uri, spec.FenceOff); res.OK || !strings.Contains(res.Err, want) {
				t.Errorf("a machine that isn't there: %+v", res)
			}
		}
		// A machine whose memory is saved is off, and would go on with what it
		// believed: it is turned off for good.
		ask(func(l *libvirt.Libvirt) error {
			dom, err := l.DomainLookupByName("test")
			if err == nil {
				err = l.DomainCreate(dom)
			}
			if err == nil {
				err = l.DomainManagedSave(dom, 0)
			}
			return err
		})
		f := device(uri, spec.FenceOff)[0]
		m := newMachine(&f, "n2", slog.New(slog.DiscardHandler))
		if off, err := m.isOff(t.Context()); off || err == nil || !strings.Contains(err.Error(), "its memory is saved") {
			t.Errorf("a machine that is saved is off: %v, %v", off, err)
		}
		if res := run("n2", uri, spec.FenceOff); !res.OK {
			t.Errorf("a machine that is saved: %+v", res)
		}
		if off, err := m.isOff(t.Context()); !off || err != nil {
			t.Errorf("a machine that was saved is off: %v, %v", off, err)
		}
		// One that goes away by itself after it was seen may run elsewhere.
		transient := func(l *libvirt.Libvirt) error {
			_, err := l.DomainCreateXML(`<domain type="test"><name>gone</name><memory>1024</memory><os><type>hvm</type></os></domain>`, 0)
			return err
		}
		ask(transient)
		m = newMachine(&f, "n4", slog.New(slog.DiscardHandler))
		if off, err := m.isOff(t.Context()); off || err != nil {
			t.Errorf("a machine that runs is off: %v, %v", off, err)
		}
		ask(func(l *libvirt.Libvirt) error {
			dom, err := l.DomainLookupByName("gone")
			if err == nil {
				err = l.DomainDestroy(dom)
			}
			return err
		})
		if err := m.off(t.Context()); err != nil {
			t.Error(err)
		}
		if off, err := m.isOff(t.Context()); off || err == nil || !strings.Contains(err.Error(), "may have moved") {
			t.Errorf("a machine that is gone is off: %v, %v", off, err)
		}
		for reason, want := range map[libvirt.DomainPausedReason]bool{libvirt.DomainPausedUser: false, libvirt.DomainPausedMigration: true, libvirt.DomainPausedPostcopy: true} {
			if moves(int32(libvirt.DomainPaused), int32(reason)) != want || moves(int32(libvirt.DomainRunning), int32(reason)) {
				t.Errorf("%v: moves = %v", reason, !want)
			}
		}
		lab.StopDaemon()
		if res := run("n2", uri, spec.FenceOff); res.OK || !strings.Contains(res.Err, "no libvirtd runs") {
			t.Errorf("without libvirtd: %+v", res)
		}
		f = device("qemu+rsh://h/system", "off")[0]
		if got := r.Check(&f); len(got) != 1 {
			t.Errorf("check: %q", got)
		}
	})
}
