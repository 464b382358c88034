package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
)

const (
	// lookEvery is the time between two looks at a machine that is coming up.
	lookEvery = 200 * time.Millisecond
	// silence is how long a guest under KVM, with accelerator = "auto", may say
	// nothing and ask for no address before it counts as dead: one that has never
	// worked there hangs in its first instructions.
	silence = 15 * time.Second
	// consoleTail is what is read of a console, in bytes.
	consoleTail = 16 << 10
)

// errDead is a guest that doesn't come up under its accelerator.
var errDead = errors.New("the guest does not run")

// boot starts the machine and waits for what it is waited for.
func (m *making) boot(ctx context.Context) error {
	err := m.bootOnce(ctx)
	if !errors.Is(err, errDead) || ctx.Err() != nil || m.accel != AcceleratorKVM || m.want.Accelerator != AcceleratorAuto {
		return err
	}
	m.req.Progress("does not come up under KVM; trying emulation")
	m.p.log.Info("a guest does not come up under KVM; trying emulation", "machine", m.want.Name, "err", err)
	m.p.mu.Lock()
	m.p.kvmFails = true
	m.p.mu.Unlock()
	m.accel = AcceleratorTCG
	if err := m.p.turnOff(ctx, m.f.dom); err != nil {
		return err
	}
	if err := m.p.conn.Do(ctx, "set machine "+m.want.Name+" to emulation", func(l *libvirt.Libvirt) error {
		return retype(l, m.f.dom, domainType(m.accel))
	}); err != nil {
		return err
	}
	if err := m.note(ctx, m.f.owner != nil && m.f.owner.Up); err != nil {
		return err
	}
	return m.bootOnce(ctx)
}

func (m *making) bootOnce(ctx context.Context) error {
	// An event tells at once of a machine that stops by itself. Without them it is
	// seen a moment later: a connection that is lost ends them, and no more.
	events, stop, err := m.p.conn.Watch(ctx)
	if err == nil {
		defer stop()
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	started := false
	if err := m.p.conn.Do(ctx, "start machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		state, _, err := l.DomainGetState(m.f.dom, 0)
		if err != nil {
			return err
		}
		switch libvirt.DomainState(state) {
		case libvirt.DomainRunning, libvirt.DomainBlocked:
			return nil
		case libvirt.DomainPaused:
			started = true
			// A start that was cut off together with libvirtd shows as paused for a
			// moment, until the new libvirtd ends it.
			switch err := l.DomainResume(m.f.dom); {
			case alreadyActive(err): // by whoever had paused it
				return nil
			case !notActive(err):
				return err
			}
		}
		started = true
		// It boots, as the plan says: a guest that went on where it was would believe
		// that what its node owned then is still its.
		if err := libvirtconn.Discard(l, m.f.dom); err != nil {
			return err
		}
		if err := l.DomainCreate(m.f.dom); err != nil && !alreadyActive(err) {
			return err
		}
		return nil
	}); err != nil {
		return m.startError(err)
	}
	if !started && m.f.owner != nil && m.f.owner.Up {
		return nil // it has run all along
	}
	m.req.Progress("started")
	return m.await(ctx, events)
}

// startError says what to do about a machine that can't be started.
func (m *making) startError(err error) error {
	if libvirtconn.Is(err, libvirt.ErrInternalError, libvirt.ErrOperationFailed, libvirt.ErrConfigUnsupported) && m.accel == AcceleratorKVM && strings.Contains(strings.ToLower(err.Error()), "kvm") {
		return fmt.Errorf("%w: %w", errDead, err)
	}
	switch msg := err.Error(); {
	case strings.Contains(msg, "Permission denied"):
		return fmt.Errorf("%w; QEMU runs as a user of its own on the hypervisor, who has to be able to reach the file: put pool_path where it can (default %s)", err, DefaultPoolPath)
	case strings.Contains(msg, "Cannot get interface MTU"), strings.Contains(msg, "Unable to add bridge"):
		return fmt.Errorf("%w; a network of mode \"bridge\" names a bridge that the hypervisor hasn't got: make it there, or name another one as the network's bridge", err)
	case strings.Contains(msg, "Cannot allocate memory"), strings.Contains(msg, "cannot set up guest memory"):
		return cty.GetAttrPath("memory").NewErrorf("the hypervisor has not got %s of memory left for it: %w", m.want.Memory, err)
	}
	return err
}

// await waits until the machine is up.
func (m *making) await(ctx context.Context, events <-chan libvirtconn.Event) error {
	if m.accel == "" { // a driver that runs nothing
		return nil
	}
	w := &waiting{m: m, begun: time.Now(), spoke: time.Now(), asked: make(chan struct{}), greeted: make(chan struct{})}
	end := w.begun.Add(time.Duration(m.want.WaitTimeout))
	if m.want.WaitFor == WaitSSH && m.first().address != "" {
		knocking, cancel := context.WithCancel(ctx)
		defer cancel()
		both := m.first().both()
		w.silent.Store(int32(len(both)))
		for i, at := range both {
			go func() {
				if !knock(knocking, m.p.dial, net.JoinHostPort(at, "22"), w.asked) {
					return
				}
				m.p.log.Debug("an SSH server greets", "machine", m.want.Name, "address", at, "after", time.Since(w.begun))
				if i == 0 {
					w.reached.Store(true)
				}
				if w.silent.Add(-1) == 0 {
					close(w.greeted)
				}
			}()
		}
	}
	for {
		up, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("machine %s is not up yet: %w", m.want.Name, context.Cause(ctx))
		case err != nil || up:
			return err
		case time.Now().After(end):
			return w.failed(ctx, fmt.Errorf("machine %s has not come up within %s: %s", m.want.Name, m.want.WaitTimeout, w.missing()), "give it longer with wait_timeout, or look at its console (virsh console "+m.want.Name+")")
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-w.greeted:
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// waiting is what has been seen of a machine that is coming up.
type waiting struct {
	m       *making
	begun   time.Time
	told    time.Time
	address bool          // it has asked for it
	asked   chan struct{} // closed by then
	greeted chan struct{} // closed when its SSH server has greeted, at both of its addresses
	silent  atomic.Int32  // of these, how many have not been greeted from
	reached atomic.Bool   // the first of them has
	length  int           // of what the console has said
	spoke   time.Time
	heard   time.Time
}

func (w *waiting) missing() string {
	switch {
	case w.m.want.WaitFor == WaitNone || len(w.m.nics) == 0:
		return "it does not run"
	case !w.address && w.m.nics[0].address != "":
		return "it has not asked for its address " + w.m.nics[0].address
	}
	if both := w.m.nics[0].both(); w.reached.Load() && len(both) > 1 {
		return "no SSH server answers at " + both[1]
	}
	return "no SSH server answers at " + w.m.nics[0].address
}

// look tells whether the machine is up.
func (w *waiting) look(ctx context.Context) (bool, error) {
	m := w.m
	first := m.first()
	var state libvirt.DomainState
	if err := m.p.conn.Do(ctx, "look at machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		s, _, err := l.DomainGetState(m.f.dom, 0)
		if state = libvirt.DomainState(s); err != nil || w.address || first.address == "" {
			return err
		}
		if ok, err := asked(l, first); err == nil && ok {
			w.address = true
			close(w.asked)
			m.req.Progress("has its address " + first.address)
		}
		return nil
	}); err != nil {
		return false, err
	}
	switch state {
	case libvirt.DomainRunning, libvirt.DomainBlocked:
	case libvirt.DomainPaused:
		return false, w.failed(ctx, fmt.Errorf("%w: the hypervisor has paused machine %s", errDead, m.want.Name), "is its disk full? Look at the hypervisor's log of it (/var/log/libvirt/qemu)")
	default:
		return false, w.failed(ctx, fmt.Errorf("%w: machine %s stopped by itself", errDead, m.want.Name), "look at what it boots from")
	}
	if w.up(first) {
		return true, nil
	}
	trying := m.accel == AcceleratorKVM && m.want.Accelerator == AcceleratorAuto && !(m.f.owner != nil && m.f.owner.Up)
	if now := time.Now(); trying && !w.address && now.Sub(w.heard) > 2*time.Second {
		w.heard = now
		if said := len(m.console(ctx)); said != w.length {
			w.length, w.spoke = said, now
		}
		if now.Sub(w.spoke) > m.p.silence {
			return false, fmt.Errorf("%w: machine %s has said nothing for %v", errDead, m.want.Name, m.p.silence)
		}
	}
	if now := time.Now(); now.Sub(w.begun) > 10*time.Second && now.Sub(w.told) > 10*time.Second {
		w.told = now
		say := fmt.Sprintf("%s after %v", w.missing(), now.Sub(w.begun).Round(time.Second))
		if last := lastLines(m.console(ctx), 1); last != "" {
			say += "; its console says: " + last
		}
		m.req.Progress(say)
	}
	return false, nil
}

// up tells whether what the machine is waited for has come.
func (w *waiting) up(first nic) bool {
	if w.m.want.WaitFor == WaitNone || first.network == "" || first.address == "" {
		// Nothing can be waited for but that it goes on running for a moment.
		return time.Since(w.begun) > time.Second
	}
	if w.m.want.WaitFor == WaitAddress {
		return w.address
	}
	select {
	case <-w.greeted:
		for _, at := range first.both() {
			w.m.req.Progress("answers SSH at " + at)
		}
		return true
	default:
		return false
	}
}

// first is the interface that the machine is reached by; none: an empty one.
func (m *making) first() nic {
	if len(m.nics) == 0 {
		return nic{}
	}
	return m.nics[0]
}

// knock tries until an SSH server greets there, or ctx ends. Seldom before asked is
// closed, when only a machine with an address of its own can answer, and not at first:
// a kernel that has asked for an address in vain asks again only after a second. Then
// often: what is sent while a guest sets its address is lost, and would be sent again
// after 1 s, then 2, then 4, so a new try is worth more than patience; a guest under
// emulation on a busy machine may need both, and more of it the longer it takes. So it
// does to greet, which it would have to begin anew.
func knock(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), at string, asked <-chan struct{}) bool {
	const seldom, settle, often = 5 * time.Second, 200 * time.Millisecond, 100 * time.Millisecond
	const quick, hurry = 300 * time.Millisecond, 30 * time.Second
	connect, greet, pause := quick, 5*time.Second, seldom
	begun := time.Now()
	for {
		select {
		case <-time.After(pause):
		case <-asked:
			asked, begun, connect, pause = nil, time.Now(), quick, settle
			continue
		case <-ctx.Done():
			return false
		}
		if asked == nil {
			pause = often
		}
		connecting, cancel := context.WithTimeout(ctx, connect)
		ended, watched := make(chan struct{}), make(chan struct{})
		go func() { // a try that was begun before it asked is none any more
			defer close(watched)
			select {
			case <-asked:
				cancel()
			case <-ended:
			}
		}()
		conn, err := dial(connecting, "tcp", at)
		close(ended)
		<-watched
		if connecting.Err() != nil {
			longest := time.Second
			if time.Since(begun) > hurry {
				longest = 5 * time.Second
			}
			connect = min(2*connect, longest)
		}
		cancel()
		if err != nil {
			continue
		}
		greeting, cancel := context.WithTimeout(ctx, greet)
		greeted := greets(greeting, conn)
		if greeting.Err() != nil {
			greet = min(2*greet, time.Minute)
		}
		cancel()
		if greeted {
			return true
		}
	}
}

// greets tells whether an SSH server says who it is, before ctx ends.
func greets(ctx context.Context, conn net.Conn) bool {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	hello := make([]byte, 4)
	_, err := io.ReadFull(conn, hello)
	return err == nil && string(hello) == "SSH-"
}

// failed is the error of a machine that doesn't come up, with its console's last
// lines. It stays, so that one can look.
func (w *waiting) failed(ctx context.Context, err error, todo string) error {
	last := lastLines(w.m.console(ctx), 15)
	if last == "" {
		return fmt.Errorf("%w; its console has said nothing; %s", err, todo)
	}
	return fmt.Errorf("%w; %s. The last lines of its console:\n%s", err, todo, indent(last))
}

// console is the end of what the machine's console has said; "": nothing, or it
// can't be read.
func (m *making) console(ctx context.Context) string {
	var file string
	for _, s := range m.f.x.Devices.Serials {
		if s.Log != nil {
			file = s.Log.File
		}
	}
	if file == "" {
		return ""
	}
	if m.p.conn.Local() {
		if f, err := os.Open(file); err == nil {
			defer f.Close()
			if info, err := f.Stat(); err == nil {
				_, _ = f.Seek(max(0, info.Size()-consoleTail), io.SeekStart) // from the start then
			}
			b, err := io.ReadAll(io.LimitReader(f, consoleTail))
			if err == nil {
				return string(b)
			}
		}
	}
	var out bytes.Buffer
	err := m.p.conn.Do(ctx, "read the console of machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		out.Reset()
		pool, err := l.StoragePoolLookupByName(m.p.pool)
		if err != nil {
			return err
		}
		if err := refresh(l, pool); err != nil {
			return err
		}
		vol, err := l.StorageVolLookupByName(pool, path.Base(file))
		if err != nil {
			return err
		}
		size, err := physical(l, vol)
		if err != nil || size == 0 {
			return err
		}
		from := max(0, size-consoleTail)
		return l.StorageVolDownload(vol, &out, uint64(from), uint64(size-from), 0)
	})
	if err != nil {
		m.p.log.Info("the console can't be read", "machine", m.want.Name, "err", err)
	}
	return out.String()
}
