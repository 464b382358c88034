package fence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

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
	// found is the machine's UUID, once it was seen: one that was never there is a
	// mistake in the definition, and proves nothing.
	found atomic.Pointer[libvirt.UUID]
	// ended: it ran, and libvirtd has ended it. One that is undefined by that (a
	// transient one) runs no more; one that is gone without it may have moved to
	// another hypervisor. Both are written by calls that may have been given up.
	ended atomic.Bool
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
	p := f.Parameters
	return libvirtconn.New(libvirtconn.Config{
		URI: uriOf(f), PrivateKey: p[spec.FenceLibvirtKey], HostKey: p[spec.FenceLibvirtHostKey], Certificate: p[spec.FenceLibvirtCert], CA: p[spec.FenceLibvirtCA],
		ConnectTimeout: timeout(f), CallTimeout: timeout(f), RetryFor: timeout(f), Log: log,
	})
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
		found := m.found.Load()
		if found != nil {
			dom, err = l.DomainLookupByUUID(*found)
		} else {
			dom, err = l.DomainLookupByName(m.name)
		}
		if libvirtconn.NotFound(err) && found == nil {
			return fmt.Errorf("%s has no machine %q; name the node's machine in plugs", uriOf(m.f), m.name)
		}
		if err != nil {
			return err
		}
		m.found.Store(&dom.UUID)
		return call(l, dom)
	})
}

// errMoves: ending what is here of a machine that moves ends it on one side only.
var errMoves = errors.New("it is moving between hypervisors, and may run on the other one; wait until it has moved, or give that one a fence")

func (m *machine) off(ctx context.Context) error {
	err := m.do(ctx, "turn off", func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		state, reason, err := l.DomainGetState(dom, 0)
		if err != nil {
			return err
		}
		if moves(state, reason) {
			return errMoves
		}
		switch err := l.DomainDestroy(dom); {
		case err == nil:
			m.ended.Store(true)
		case libvirtconn.Is(err, libvirt.ErrOperationInvalid): // it isn't running: isOff says whether that is so
		default:
			return err
		}
		return libvirtconn.Discard(l, dom)
	})
	if libvirtconn.NotFound(err) { // isOff says what that means
		return nil
	}
	return err
}

// moves tells whether a machine is paused because its other half, on another
// hypervisor, is to go on, or goes on already.
func moves(state, reason int32) bool {
	if libvirt.DomainState(state) != libvirt.DomainPaused {
		return false
	}
	switch libvirt.DomainPausedReason(reason) {
	case libvirt.DomainPausedMigration, libvirt.DomainPausedPostcopy, libvirt.DomainPausedPostcopyFailed:
		return true
	}
	return false
}

func (m *machine) on(ctx context.Context) error {
	return m.do(ctx, "start", func(l *libvirt.Libvirt, dom libvirt.Domain) error {
		return l.DomainCreate(dom)
	})
}

// isOff: only a machine that libvirtd calls shut off is, and one that it called
// so because it went to another hypervisor is not, nor one whose memory it keeps.
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
		if saved, err := libvirtconn.Saved(l, dom); err != nil || saved {
			off = false
			return cmp.Or(err, errors.New("its memory is saved, and its next start goes on with it"))
		}
		return nil
	})
	if libvirtconn.NotFound(err) { // found before, and gone
		if !m.ended.Load() {
			return false, fmt.Errorf("machine %s is gone from %s and was not turned off: it may have moved to another hypervisor, where it may run", m.name, uriOf(m.f))
		}
		return true, nil
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
