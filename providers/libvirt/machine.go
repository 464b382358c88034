package libvirt

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/providers"
)

// ownerURI is the XML namespace of what a machine's metadata say of its maker.
const ownerURI = "https://clusterplan.github.io/libvirt/1"

// shutdownWait is how long a guest may take to shut down before it is turned off.
const shutdownWait = 20 * time.Second

// found is a machine as libvirtd has it.
type found struct {
	dom   libvirt.Domain
	x     xmlMachine // as it will start next
	owner *xmlOwner  // nil: made elsewhere
}

func (f *found) nics() []nic {
	var out []nic
	for _, i := range f.x.Devices.Interfaces {
		out = append(out, nic{network: i.Source.Network, mac: strings.ToLower(i.MAC.Address)})
	}
	return out
}

func look(l *libvirt.Libvirt, dom libvirt.Domain) (*found, error) {
	text, err := l.DomainGetXMLDesc(dom, libvirt.DomainXMLInactive)
	if err != nil {
		return nil, err
	}
	f := &found{dom: dom}
	if err := fromXML(text, &f.x); err != nil {
		return nil, err
	}
	if f.x.Metadata != nil {
		f.owner = f.x.Metadata.Owner
	}
	return f, nil
}

// machine finds a machine by its object's id; nil: there is none.
func (p *Provider) machine(ctx context.Context, id string) (*found, error) {
	var f *found
	err := p.conn.Do(ctx, "look for machine "+id, func(l *libvirt.Libvirt) error {
		f = nil
		dom, err := l.DomainLookupByUUID(uuidOf(addr.TypeMachine, id))
		if err == nil {
			f, err = look(l, dom)
		}
		if libvirtconn.NotFound(err) {
			return nil
		}
		return err
	})
	return f, err
}

// making is a machine that is made or changed.
type making struct {
	p     *Provider
	req   providers.ApplyRequest
	want  machineSpec
	prior []string // addresses that it had
	nics  []nic
	accel string // kvm or tcg; "": the driver has no choice
	board string // of a machine that is made now; "": libvirt's choice
	f     *found
	key   hostKey     // of a machine that is made now
	boots []imageFile // kernel and initramfs of a machine that is made now
}

// applyMachine makes a machine or changes it in place, and waits until it is up.
func (p *Provider) applyMachine(ctx context.Context, req providers.ApplyRequest) (*providers.Object, error) {
	m := &making{p: p, req: req}
	if err := schema.DecodeKnown(req.Planned, &m.want); err != nil {
		return nil, err
	}
	if err := m.want.check(); err != nil {
		return nil, err
	}
	var had struct {
		Addresses []string `json:"addresses"`
	}
	if prior := priorValue(req.Prior); prior != cty.NilVal {
		if err := schema.DecodeKnown(prior, &had); err != nil {
			return nil, err
		}
	}
	m.prior = had.Addresses
	for i, s := range m.want.interfaces() {
		n := nic{network: s.Network, mac: s.MAC, address: s.Address}
		if n.mac == "" {
			n.mac = macOf(req.ID, i)
		}
		m.nics = append(m.nics, n)
	}
	var err error
	if m.f, err = p.machine(ctx, req.ID); err != nil {
		return nil, err
	}
	if m.f != nil && foreignID(req.ID) { // it has its own
		for i, has := range m.f.nics() {
			if i < len(m.nics) && m.want.interfaces()[i].MAC == "" {
				m.nics[i].mac = has.mac
			}
		}
	}
	if f := m.f; f != nil && req.Phase == providers.PhaseCreate && f.owner != nil && !f.owner.Up && f.owner.Value != m.value() {
		// A create that was cut off, of what the definition says no more. An update
		// says nothing of a disk that goes.
		req.Progress("removing what an apply that was cut off has left")
		if err := p.deleteMachine(ctx, req); err != nil {
			return nil, err
		}
		m.f = nil
	}
	if err := m.diskStillThere(ctx); err != nil {
		return nil, err
	}
	switch {
	case m.f == nil && foreignID(req.ID):
		return nil, fmt.Errorf("machine %s is gone and was not made here: make it again, or remove its import", req.ID)
	case m.f == nil:
		err = m.create(ctx)
	default:
		err = m.change(ctx)
	}
	if err != nil {
		return nil, err
	}
	o, _, err := p.readMachine(ctx, req.ID, req.Planned, cty.NilVal)
	if err == nil && o == nil {
		err = fmt.Errorf("machine %s went away while it was made", m.want.Name)
	}
	return o, err
}

// value is what the metadata hold of the definition: all of it, and digests in
// place of what may hold secrets.
func (m *making) value() string {
	v, _ := m.req.Planned.UnmarkDeep()
	attrs := v.AsValueMap()
	for _, a := range machineSchema().Attributes {
		if a.Computed {
			attrs[a.Name] = schema.Absent(schema.AttributeType(a.Type))
		}
	}
	attrs["cloud_init"] = sealed(attrs["cloud_init"])
	b, err := schema.ToJSON(cty.ObjectVal(attrs))
	if err != nil { // values of plans have JSON
		panic(err)
	}
	var compact map[string]json.RawMessage // in one order, whatever the value's
	if json.Unmarshal(b, &compact) == nil {
		if again, err := json.Marshal(compact); err == nil {
			b = again
		}
	}
	return string(b)
}

// create defines the machine, with all that it needs, and boots it.
func (m *making) create(ctx context.Context) error {
	p, name := m.p, m.want.Name
	if err := p.conn.Do(ctx, "look for machine "+name, func(l *libvirt.Libvirt) error {
		dom, err := l.DomainLookupByName(name)
		if err == nil && dom.UUID != uuidOf(addr.TypeMachine, m.req.ID) {
			return taken(addr.TypeMachine, name, p.conn.URI())
		}
		if err == nil || libvirtconn.NotFound(err) {
			m.accel, err = m.accelerator(l)
		}
		if err != nil {
			return err
		}
		return m.able(l)
	}); err != nil {
		return err
	}
	x, release, err := m.build(ctx)
	defer release()
	if err != nil {
		return err
	}
	text, err := toXML(x)
	if err != nil {
		return err
	}
	if err := p.conn.Do(ctx, "define machine "+name, func(l *libvirt.Libvirt) error {
		dom, err := l.DomainDefineXMLFlags(text, libvirt.DomainDefineValidate)
		if libvirtconn.Is(err, libvirt.ErrInvalidArg, libvirt.ErrNoSupport, libvirt.ErrXMLInvalidSchema) {
			dom, err = l.DomainDefineXML(text)
		}
		if err != nil {
			return err
		}
		if m.f, err = look(l, dom); err != nil || m.want.Kernel == "" {
			return err
		}
		pool, err := p.openPool(l, p.pool)
		if err != nil {
			return err
		}
		return unmark(l, pool, fileOf(name, m.req.ID, uploadFile))
	}); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	return m.finish(ctx)
}

// settle has what the defined machine boots from be there for good.
func (m *making) settle(ctx context.Context) error {
	m.p.storage.Lock()
	defer m.p.storage.Unlock()
	for _, f := range m.boots {
		if err := m.p.settle(ctx, m.p.pool, f, m.req.Progress); err != nil {
			return err
		}
	}
	return nil
}

// finish gives a defined machine its addresses, autostart and a start.
func (m *making) finish(ctx context.Context) error {
	for i := range m.nics {
		n := &m.nics[i]
		prior := ""
		if i < len(m.prior) {
			prior = m.prior[i]
		}
		path := cty.GetAttrPath("network")
		if m.want.Network == "" {
			path = cty.GetAttrPath("interface").IndexInt(i).GetAttr("address")
		}
		var err error
		if n.address, n.six, err = m.p.lease(ctx, m.want.Name, *n, prior, path); err != nil {
			return err
		}
	}
	if err := m.p.conn.Do(ctx, "set autostart of machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		return l.DomainSetAutostart(m.f.dom, number(m.want.Autostart))
	}); err != nil {
		return err
	}
	if err := m.boot(ctx); err != nil {
		return err
	}
	return m.note(ctx, true)
}

// note writes into the machine's metadata whose it is and whether it has come up.
func (m *making) note(ctx context.Context, up bool) error {
	o := xmlOwner{ID: m.req.ID, Addr: m.req.Addr.String(), Value: m.value(), Up: up, Accel: m.accel}
	if m.f.owner != nil {
		o.Key = m.f.owner.Key
	}
	if m.f.owner != nil && *m.f.owner == o {
		return nil
	}
	text, err := ownerText(o)
	if err != nil {
		return err
	}
	return m.p.conn.Do(ctx, "mark machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		const element = 2 // VIR_DOMAIN_METADATA_ELEMENT
		err := l.DomainSetMetadata(m.f.dom, element, libvirt.OptString{text}, libvirt.OptString{"clusterplan"}, libvirt.OptString{ownerURI}, libvirt.DomainAffectConfig)
		if err == nil {
			m.f.owner = &o
		}
		return err
	})
}

func ownerText(o xmlOwner) (string, error) {
	return toXML(struct {
		XMLName xml.Name `xml:"machine"`
		xmlOwner
	}{xmlOwner: o})
}

// change brings a machine that is there to what the definition says.
func (m *making) change(ctx context.Context) error {
	f, name := m.f, m.want.Name
	if f.owner == nil && !m.req.Adopt && !foreignID(m.req.ID) {
		return taken(addr.TypeMachine, name, m.p.conn.URI())
	}
	restart := false
	if m.req.Prior != nil && disksDiffer(m.req.Prior.Health) {
		if err := m.attach(ctx); err != nil {
			return err
		}
		restart = true
	}
	if err := m.p.conn.Do(ctx, "change machine "+name, func(l *libvirt.Libvirt) (err error) {
		if m.accel, err = m.accelerator(l); err != nil {
			return err
		}
		if f.x.Type == "kvm" || f.x.Type == "qemu" {
			if typ := domainType(m.accel); m.accel != "" && f.x.Type != typ {
				if err := retype(l, f.dom, typ); err != nil {
					return err
				}
			}
		}
		if err := resize(l, f, sizeOf(m.want.Memory), m.want.VCPUs); err != nil {
			return err
		}
		active, err := l.DomainIsActive(f.dom)
		if err != nil || active == 0 {
			return err
		}
		var now xmlMachine
		text, err := l.DomainGetXMLDesc(f.dom, 0)
		if err = errors.Join(err, fromXML(text, &now)); err != nil {
			return err
		}
		restart = restart || now.Memory.bytes() != sizeOf(m.want.Memory) || now.VCPU != m.want.VCPUs || (m.accel != "" && now.Type != domainType(m.accel))
		return nil
	}); err != nil {
		return err
	}
	if restart {
		m.req.Progress("shutting down")
		if err := m.p.shutdown(ctx, f.dom); err != nil {
			return err
		}
	}
	return m.finish(ctx)
}

// resize sets what the machine starts with next.
func resize(l *libvirt.Libvirt, f *found, memory int64, vcpus int) error {
	const maximumMemory, config = uint32(libvirt.DomainMemMaximum), uint32(libvirt.DomainAffectConfig)
	kib := uint64(memory >> 10)
	if f.x.Memory.bytes() != memory {
		// The bound goes up before what it bounds, and down after it.
		steps := []uint32{maximumMemory | config, config}
		if f.x.Memory.bytes() > memory {
			steps = []uint32{config, maximumMemory | config}
		}
		for _, flags := range steps {
			if err := l.DomainSetMemoryFlags(f.dom, kib, flags); err != nil {
				return cty.GetAttrPath("memory").NewErrorf("set the memory: %w", err)
			}
		}
	}
	if f.x.VCPU != vcpus {
		const maximumVCPUs = uint32(libvirt.DomainVCPUMaximum)
		steps := []uint32{maximumVCPUs | config, config}
		if f.x.VCPU > vcpus {
			steps = []uint32{config, maximumVCPUs | config}
		}
		for _, flags := range steps {
			if err := l.DomainSetVcpusFlags(f.dom, uint32(vcpus), flags); err != nil {
				return cty.GetAttrPath("vcpus").NewErrorf("set the processors: %w", err)
			}
		}
	}
	return nil
}

// shutdown asks the guest to shut down, and turns it off where it doesn't.
func (p *Provider) shutdown(ctx context.Context, dom libvirt.Domain) error {
	stopped := func() (off bool, err error) {
		err = p.conn.Do(ctx, "look at machine "+dom.Name, func(l *libvirt.Libvirt) error {
			active, err := l.DomainIsActive(dom)
			off = active == 0
			return err
		})
		return off, err
	}
	if err := p.conn.Do(ctx, "shut machine "+dom.Name+" down", func(l *libvirt.Libvirt) error {
		if err := l.DomainShutdown(dom); err != nil && !notActive(err) {
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	for end := time.Now().Add(shutdownWait); time.Now().Before(end); {
		if off, err := stopped(); off || err != nil {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.turnOff(ctx, dom)
}

// turnOff is pulling the plug.
func (p *Provider) turnOff(ctx context.Context, dom libvirt.Domain) error {
	return p.conn.Do(ctx, "turn machine "+dom.Name+" off", func(l *libvirt.Libvirt) error {
		err := l.DomainDestroy(dom)
		for end := time.Now().Add(15 * time.Second); err != nil && strings.Contains(err.Error(), "resource busy") && time.Now().Before(end); {
			time.Sleep(250 * time.Millisecond) // the kernel has not let go of it yet
			err = l.DomainDestroy(dom)
		}
		if notActive(err) || libvirtconn.NotFound(err) {
			return nil
		}
		return err
	})
}

// deleteMachine removes a machine with all that was made for it, however far a
// create had come. What others made and it used, stays.
func (p *Provider) deleteMachine(ctx context.Context, req providers.ApplyRequest) error {
	f, err := p.machine(ctx, req.ID)
	if err != nil {
		return err
	}
	if f != nil {
		if err := p.turnOff(ctx, f.dom); err != nil {
			return err
		}
		p.leases.Lock()
		err := p.conn.Do(ctx, "undefine machine "+f.dom.Name, func(l *libvirt.Libvirt) error {
			if err := release(l, f.nics()); err != nil {
				return err
			}
			err := l.DomainUndefineFlags(f.dom, libvirt.DomainUndefineNvram|libvirt.DomainUndefineManagedSave|libvirt.DomainUndefineSnapshotsMetadata|libvirt.DomainUndefineCheckpointsMetadata)
			if libvirtconn.Is(err, libvirt.ErrInvalidArg, libvirt.ErrNoSupport, libvirt.ErrArgumentUnsupported) {
				err = l.DomainUndefine(f.dom)
			}
			if libvirtconn.NotFound(err) {
				return nil
			}
			return err
		})
		p.leases.Unlock()
		if err != nil {
			return err
		}
	}
	if foreignID(req.ID) {
		return nil
	}
	return p.deleteFiles(ctx, req.ID, p.homeOf(f, priorValue(req.Prior)))
}

// consolePath is the file that holds what the machine's console said.
func consolePath(poolPath, name, id string) string {
	return path.Join(poolPath, fileOf(name, id, consoleFile))
}
