package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/digitalocean/go-libvirt"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// machine is a node that is a virtual machine, by the libvirtd that runs it: that
// turns it off, and knows whether it is.
type machine struct {
	f    *spec.Fence
	name string
	log  *slog.Logger
	// found is the machine's UUID, once it was seen: one that is undefined by being
	// turned off (a transient one) runs no more; one that was never there is a
	// mistake in the definition, and proves nothing.
	found *libvirt.UUID
}

func newMachine(f *spec.Fence, node string, log *slog.Logger) *machine {
	m := &machine{f: f, name: node, log: log}
	if plug, ok := f.Plugs[node]; ok {
		m.name = plug
	}
	return m
}

// uriOf is where a fence's libvirtd is.
func uriOf(f *spec.Fence) string { return f.Parameters[spec.FenceLibvirtURI] }

func connect(f *spec.Fence, log *slog.Logger) (*libvirtconn.Conn, error) {
	return libvirtconn.New(libvirtconn.Config{URI: uriOf(f), ConnectTimeout: timeout(f), CallTimeout: timeout(f), RetryFor: timeout(f), Log: log})
}

// do makes one call, over a connection of its own: a fence is rare.
func (m *machine) do(ctx context.Context, what string, call func(*libvirt.Libvirt, libvirt.Domain) error) error {
	c, err := connect(m.f, m.log)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(ctx, what+" machine "+m.name, func(l *libvirt.Libvirt) error {
		var dom libvirt.Domain
		var err error
		if m.found != nil {
			dom, err = l.DomainLookupByUUID(*m.found)
		} else {
			dom, err = l.DomainLookupByName(m.name)
		}
		if libvirtconn.NotFound(err) && m.found == nil {
			return fmt.Errorf("%s has no machine %q; name the node's machine in plugs", uriOf(m.f), m.name)
		}
		if err != nil {
			return err
		}
		m.found = &dom.UUID
		return call(l, dom)
	})
}

func (m *machine) off(ctx context.Context) error {
	err := m.do(ctx, "turn off", func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		err := l.DomainDestroy(dom)
		if libvirtconn.Is(err, libvirt.ErrOperationInvalid) { // it isn't running: isOff says whether that is so
			return nil
		}
		return err
	})
	if libvirtconn.NotFound(err) {
		return nil
	}
	return err
}

func (m *machine) on(ctx context.Context) error {
	return m.do(ctx, "start", func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		return l.DomainCreate(dom)
	})
}

// isOff: only a machine that libvirtd calls shut off is, and one that it called
// so because it went to another hypervisor is not.
func (m *machine) isOff(ctx context.Context) (bool, error) {
	off := false
	err := m.do(ctx, "look at", func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		state, reason, err := l.DomainGetState(dom, 0)
		if err != nil {
			return err
		}
		off = libvirt.DomainState(state) == libvirt.DomainShutoff
		if off && libvirt.DomainShutoffReason(reason) == libvirt.DomainShutoffMigrated {
			off = false
			return errors.New("it has moved to another hypervisor, where it may run")
		}
		return nil
	})
	if libvirtconn.NotFound(err) {
		return true, nil // found before, and gone
	}
	return off, err
}

// checkMachines tells what is wrong with a fence of libvirt's, without asking its
// libvirtd.
func checkMachines(f *spec.Fence, log *slog.Logger) []string {
	c, err := connect(f, log)
	if err != nil {
		return []string{err.Error()}
	}
	c.Close()
	return nil
}
