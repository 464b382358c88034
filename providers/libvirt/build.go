package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// domainType is libvirt's word for an accelerator.
func domainType(accel string) string {
	if accel == AcceleratorKVM {
		return "kvm"
	}
	return "qemu"
}

// accelerator decides what the machine starts with; "" where the driver runs
// nothing (libvirt's test driver). auto is KVM where the hypervisor has it,
// unless this machine, or another of this run, didn't come up under it.
func (m *making) accelerator(l *libvirt.Libvirt) (string, error) {
	driver, err := l.ConnectGetType()
	if err != nil {
		return "", err
	}
	if driver != "QEMU" {
		return "", nil
	}
	if m.want.Accelerator == AcceleratorTCG {
		return AcceleratorTCG, nil
	}
	if m.want.Accelerator == AcceleratorAuto {
		if m.f != nil && m.f.owner != nil && m.f.owner.Accel != "" {
			return m.f.owner.Accel, nil
		}
		if m.f != nil && m.f.x.accelerator() != "" { // one that was made elsewhere stays as it is
			return m.f.x.accelerator(), nil
		}
		if m.p.kvmFailed() {
			return AcceleratorTCG, nil
		}
	}
	_, err = l.ConnectGetDomainCapabilities(nil, nil, nil, libvirt.OptString{"kvm"}, 0)
	switch {
	case err == nil:
		return AcceleratorKVM, nil
	case m.want.Accelerator == AcceleratorKVM:
		return "", cty.GetAttrPath("accelerator").NewErrorf("%s has no KVM: %w; load its module there (modprobe kvm_intel or kvm_amd), turn virtualization on in its firmware, or write accelerator = \"auto\"", m.p.conn.URI(), err)
	}
	return AcceleratorTCG, nil
}

// able refuses what the hypervisor has no program or firmware for, before anything
// is made, and chooses the board.
func (m *making) able(l *libvirt.Libvirt) error {
	if m.accel == "" {
		return nil
	}
	capable := func(board libvirt.OptString) (c xmlCapabilities, err error) {
		text, err := l.ConnectGetDomainCapabilities(nil, nil, board, libvirt.OptString{domainType(m.accel)}, 0)
		if err != nil {
			return c, err
		}
		return c, fromXML(text, &c)
	}
	c, err := capable(nil)
	if err != nil {
		return fmt.Errorf("%s can't run machines: %w; install QEMU for its processors there (Debian: qemu-system-x86)", m.p.conn.URI(), err)
	}
	if c.Arch == "x86_64" {
		// In place of the board of 1996 that libvirt takes by itself: Linux is up on it
		// a fifth sooner.
		if better, err := capable(libvirt.OptString{"q35"}); err == nil {
			c, m.board = better, "q35"
		}
	}
	if m.want.Firmware == FirmwareUEFI && !c.has("firmware", "efi") {
		return cty.GetAttrPath("firmware").NewErrorf("%s has no UEFI firmware for machines: install it there (Debian: ovmf), or write firmware = \"bios\"", m.p.conn.URI())
	}
	return nil
}

func (p *Provider) kvmFailed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kvmFails
}

var typeAttribute = regexp.MustCompile(`^(\s*<domain type=['"])[a-z]+`)

// retype has a machine start with another accelerator; the rest of it stays as it is.
func retype(l *libvirt.Libvirt, dom libvirt.Domain, typ string) error {
	text, err := l.DomainGetXMLDesc(dom, libvirt.DomainXMLInactive|libvirt.DomainXMLSecure)
	if err != nil {
		return err
	}
	_, err = l.DomainDefineXML(typeAttribute.ReplaceAllString(text, "${1}"+typ))
	return err
}

// build makes what the machine needs, and its XML. release lets go of images
// that nothing stands on before the machine is defined.
func (m *making) build(ctx context.Context) (x xmlMachine, release func(), err error) {
	p, want, id := m.p, m.want, m.req.ID
	var held []func()
	release = func() {
		for _, f := range held {
			f()
		}
	}
	x = xmlMachine{
		Type: "test", Name: want.Name, UUID: uuidText(uuidOf(addr.TypeMachine, id)),
		Memory: xmlMemory{Unit: "KiB", Value: sizeOf(want.Memory) >> 10}, VCPU: want.VCPUs,
		OS:       xmlOS{Type: xmlOSType{Value: "hvm"}, Cmdline: want.Cmdline},
		Features: &xmlFeatures{ACPI: &xmlEmpty{}, APIC: &xmlEmpty{}},
		Clock:    &xmlClock{Offset: "utc"}, Reboot: "restart", Crash: "destroy",
		Metadata: &xmlMetadata{Owner: &xmlOwner{ID: id, Addr: m.req.Addr.String(), Value: m.value(), Accel: m.accel}},
	}
	if m.accel != "" {
		x.Type, x.CPU = domainType(m.accel), &xmlCPU{Mode: "maximum"}
	}
	x.OS.Type.Machine = m.board
	if want.Firmware == FirmwareUEFI {
		x.OS.Firmware = "efi"
		// Libvirt would choose one with Secure Boot, which starts what Microsoft has signed.
		x.OS.Features = &xmlUEFI{[]xmlUEFIFeature{{Enabled: "no", Name: "enrolled-keys"}, {Enabled: "no", Name: "secure-boot"}}}
	}
	for _, boot := range []struct {
		attribute, file string
		path            *string
	}{{"kernel", want.Kernel, &x.OS.Kernel}, {"initrd", want.Initrd, &x.OS.Initrd}} {
		if boot.file == "" {
			continue
		}
		f, err := p.openImage(ctx, boot.attribute, boot.file, "")
		if err != nil {
			return x, release, err
		}
		held = append(held, p.hold(f.name()))
		m.boots = append(m.boots, f)
		p.storage.Lock()
		*boot.path, err = p.cache(ctx, p.pool, f, fileOf(want.Name, id, uploadFile), m.req.Progress)
		p.storage.Unlock()
		if err != nil {
			return x, release, err
		}
	}
	disk := func(path, format string, readOnly bool) {
		d := xmlDisk{Type: "file", Device: "disk", Driver: &xmlDriver{Name: "qemu", Type: format}, Source: xmlSource{File: path},
			Target: xmlDiskDev{Dev: "vd" + string(rune('a'+len(x.Devices.Disks))), Bus: "virtio"}}
		if readOnly {
			d.ReadOnly = &xmlEmpty{}
		}
		x.Devices.Disks = append(x.Devices.Disks, d)
	}
	if want.Image != "" {
		path, err := p.disk(ctx, diskRequest{pool: p.pool, name: fileOf(want.Name, id, diskFile), mark: fileOf(want.Name, id, uploadFile), attribute: "image", image: want.Image,
			digest: want.ImageDigest, size: sizeOf(want.DiskSize), progress: m.req.Progress})
		if err != nil {
			return x, release, err
		}
		disk(path, "qcow2", false)
	}
	for _, name := range want.Volumes {
		path, format, err := p.volumeNamed(ctx, name)
		if err != nil {
			return x, release, err
		}
		disk(path, format, false)
	}
	if want.CloudInit.Enabled && (m.accel != "" || want.Image != "") { // the test driver boots nothing, and takes no files
		if want.CloudInit.UserData == "" {
			if m.key, err = newHostKey(want.Name); err != nil {
				return x, release, err
			}
			x.Metadata.Owner.Key = m.key.public
		}
		iso, err := m.seed()
		if err != nil {
			return x, release, err
		}
		p.storage.Lock()
		path, err := p.uploadBytes(ctx, p.pool, fileOf(want.Name, id, seedFile), iso)
		p.storage.Unlock()
		if err != nil {
			return x, release, err
		}
		disk(path, "raw", true)
	}
	if len(x.Devices.Disks) > 0 && x.OS.Kernel == "" {
		x.OS.Boot = []xmlDev{{Dev: "hd"}}
	}
	for _, n := range m.nics {
		x.Devices.Interfaces = append(x.Devices.Interfaces, xmlInterface{Type: "network", MAC: xmlAddr{Address: n.mac},
			Source: xmlSource{Network: n.network}, Model: &xmlModel{Type: "virtio"}, ROM: &xmlROM{Enabled: "no"}})
	}
	if m.accel == "" {
		return x, release, nil
	}
	console, err := m.consoleFile(ctx)
	if err != nil {
		return x, release, err
	}
	x.Devices.Serials = []xmlSerial{{Type: "pty", Log: &xmlLog{File: console, Append: "off"}, Target: &xmlPort{Port: "0"}}}
	x.Devices.Consoles = []xmlConsole{{Type: "pty", Target: &xmlPort{Type: "serial", Port: "0"}}}
	x.Devices.RNG = &xmlRNG{Model: "virtio", Backend: xmlBackend{Model: "random", Value: "/dev/urandom"}}
	x.Devices.Balloon = &xmlModel{Model: "virtio"}
	return x, release, nil
}

// consoleFile is where the console's words go: into the pool, where they can be
// read, and removed, through libvirtd from anywhere.
func (m *making) consoleFile(ctx context.Context) (string, error) {
	var dir string
	m.p.storage.Lock()
	defer m.p.storage.Unlock()
	err := m.p.conn.Do(ctx, "open the pool "+m.p.pool, func(l *libvirt.Libvirt) error {
		pool, err := m.p.openPool(l, m.p.pool)
		if err != nil {
			return err
		}
		text, err := l.StoragePoolGetXMLDesc(pool, 0)
		if err != nil {
			return err
		}
		var x xmlPool
		if err := fromXML(text, &x); err != nil {
			return err
		}
		dir = x.Target.Path
		return nil
	})
	return consolePath(dir, m.want.Name, m.req.ID), err
}

// volumeNamed finds the volume that a definition calls name: one that was made
// here, else one that has this name in a pool.
func (p *Provider) volumeNamed(ctx context.Context, name string) (path, format string, err error) {
	path, format, err = p.lookForVolume(ctx, name)
	if err == nil && path == "" {
		err = cty.GetAttrPath("volumes").NewErrorf("%s has no volume %q; it was there when this was planned", p.conn.URI(), name)
	}
	return path, format, err
}

// lookForVolume is volumeNamed; no path: it isn't there.
func (p *Provider) lookForVolume(ctx context.Context, name string) (path, format string, err error) {
	err = p.conn.Do(ctx, "look for volume "+name, func(l *libvirt.Libvirt) error {
		pools, err := activePools(l)
		if err != nil {
			return err
		}
		var ours, others []libvirt.StorageVol
		for _, pool := range pools {
			vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
			if err != nil && !libvirtconn.NotFound(err) {
				return err
			}
			for _, v := range vols {
				switch {
				case v.Name == name:
					others = append(others, v)
				case isVolume(v.Name, name):
					ours = append(ours, v)
				}
			}
		}
		all := slices.Concat(ours, others)
		switch {
		case len(all) == 0:
			return nil
		case len(ours) > 1 || len(ours) == 0 && len(others) > 1:
			return cty.GetAttrPath("volumes").NewErrorf("%s has more than one volume %q (%s and %s); give them different names", p.conn.URI(), name, all[0].Key, all[1].Key)
		}
		x, err := describe(l, all[0])
		if libvirtconn.NotFound(err) { // its file is gone
			return nil
		}
		if err != nil {
			return err
		}
		path, format = x.Target.Path, "raw"
		if x.Target.Format != nil {
			format = cmp.Or(x.Target.Format.Type, format)
		}
		return nil
	})
	return path, format, err
}

// lastLines are the last n lines of a console's words, without what only moves a
// terminal's cursor.
func lastLines(s string, n int) string {
	s = controls.ReplaceAllString(strings.ReplaceAll(s, "\r", ""), "")
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	lines = lines[max(0, len(lines)-n):]
	for i := range lines {
		if len(lines[i]) > 200 {
			lines[i] = lines[i][:200] + "..."
		}
	}
	return strings.Join(lines, "\n")
}

var controls = regexp.MustCompile(`\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[a-zA-Z=>])|[\x00-\x08\x0b-\x1f\x7f]`)

func indent(s string) string { return fmt.Sprintf("  %s", strings.ReplaceAll(s, "\n", "\n  ")) }
