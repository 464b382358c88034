package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/providers"
)

// What is wrong with a machine's disks; one of others is no more than told. One that
// was taken off is put back in place, which reboots the machine; without its own disk
// it is made anew; of a volume that is made anew it has to let go of the old one.
const (
	healthDiskGone     = "its disk is gone"
	healthDiskDetached = "its disk is detached"
	volumeGone         = "volume %s is gone"
	volumeDetached     = "volume %s is detached"
	diskOfOthers       = "has a disk of others: "
)

// disksDiffer tells whether words of health are of disks.
func disksDiffer(health []string) bool {
	return slices.ContainsFunc(health, func(h string) bool {
		return h == healthDiskGone || strings.HasSuffix(h, " is detached") || strings.HasPrefix(h, "volume ") && strings.HasSuffix(h, " is gone")
	})
}

// diskState is what there is of the disks that a machine should have.
type diskState struct {
	health []string
	image  string // what its own disk stands on, as image_digest has it; "": not known
}

// lookAtDisks compares a machine's disks, as it runs and as it would start next, with
// the definition that it was made by.
func (p *Provider) lookAtDisks(ctx context.Context, f *found, want machineSpec) (diskState, error) {
	var s diskState
	if f.owner == nil {
		return s, nil
	}
	volumes, err := p.volumesNamed(ctx, want.Volumes)
	if err != nil {
		return s, err
	}
	err = p.conn.Do(ctx, "look at the disks of machine "+f.x.Name, func(l *libvirt.Libvirt) error {
		s = diskState{}
		ways, err := f.ways(l)
		if err != nil {
			return err
		}
		has := func(file string) bool {
			return !slices.ContainsFunc(ways, func(x xmlMachine) bool { return !x.hasDisk(file) })
		}
		if want.Image != "" {
			vol, x, err := ownDisk(l, f.owner.ID, p.homeOf(f, cty.NilVal))
			switch {
			case err != nil:
				return err
			case vol == nil:
				if err := asleep(l, p.pool); err != nil {
					return err
				}
				s.health = append(s.health, healthDiskGone)
			case !has(x.Target.Path):
				s.health = append(s.health, healthDiskDetached)
			}
			if x.Backing != nil {
				if name := path.Base(x.Backing.Path); isImage(name) {
					s.image = "sha256:" + strings.TrimPrefix(name, imagePrefix)
				}
			}
		}
		for _, name := range want.Volumes {
			switch at := volumes[name]; {
			case at == "":
				s.health = append(s.health, fmt.Sprintf(volumeGone, name))
			case !has(at):
				s.health = append(s.health, fmt.Sprintf(volumeDetached, name))
			}
		}
		if foreignID(f.owner.ID) { // it came with disks that no definition tells of
			return nil
		}
		for _, x := range ways {
			for _, d := range x.Devices.Disks {
				file := d.Source.File
				if isFileOf(path.Base(file), f.owner.ID) || slices.ContainsFunc(want.Volumes, func(v string) bool { return file != "" && volumes[v] == file || isVolume(path.Base(file), v) }) {
					continue
				}
				if note := fmt.Sprintf("%s%s (%s)", diskOfOthers, d.Target.Dev, cmp.Or(file, d.Source.Dev, d.Source.Name, d.Device)); !slices.Contains(s.health, note) {
					s.health = append(s.health, note)
				}
			}
		}
		return nil
	})
	return s, err
}

// toMend are words of health without those that only tell: disks of others are theirs.
func toMend(health []string) []string {
	return slices.DeleteFunc(slices.Clone(health), func(h string) bool { return strings.HasPrefix(h, diskOfOthers) })
}

// ways are the machine for its next start and, while it runs, as it is.
func (f *found) ways(l *libvirt.Libvirt) ([]xmlMachine, error) {
	ways := []xmlMachine{f.x}
	active, err := l.DomainIsActive(f.dom)
	if err != nil || active == 0 {
		return ways, err
	}
	var now xmlMachine
	text, err := l.DomainGetXMLDesc(f.dom, 0)
	if err = errors.Join(err, fromXML(text, &now)); err != nil {
		return nil, err
	}
	return append(ways, now), nil
}

func (m *xmlMachine) hasDisk(file string) bool {
	return slices.ContainsFunc(m.Devices.Disks, func(d xmlDisk) bool { return d.Source.File == file })
}

// ownDisk is the volume that a machine's own disk is; nil: it is gone.
func ownDisk(l *libvirt.Libvirt, id string, h home) (*libvirt.StorageVol, xmlVolume, error) {
	files, err := filesOf(l, id, h)
	if err != nil {
		return nil, xmlVolume{}, err
	}
	var vol *libvirt.StorageVol
	var x xmlVolume
	for _, v := range files {
		if !strings.HasSuffix(v.Name, "."+diskFile) {
			continue
		}
		is, err := describe(l, v)
		if libvirtconn.NotFound(err) {
			continue
		}
		if err != nil {
			return nil, is, err
		}
		if vol == nil || slices.Contains(h.files, is.Target.Path) {
			vol, x = &v, is
		}
	}
	return vol, x, nil
}

// diskStillThere refuses to change a machine in place whose own disk went after the plan
// was made: one in its place begins as the image again, and no plan has said so.
func (m *making) diskStillThere(ctx context.Context) error {
	if m.req.Phase != providers.PhaseUpdate || m.want.Image == "" || foreignID(m.req.ID) || text(priorValue(m.req.Prior), "uuid") == "" {
		return nil
	}
	h := m.p.homeOf(m.f, priorValue(m.req.Prior))
	return m.p.conn.Do(ctx, "look for the disk of machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		vol, _, err := ownDisk(l, m.req.ID, h)
		if err == nil && vol != nil && m.f == nil && vol.Pool != m.p.pool {
			return fmt.Errorf("machine %s is undefined and its disk is in pool %s, where the provider has pool %s now: a new one would begin as the image again, without what was written since; name that pool in the provider block (pool = %[2]q), or define the machine again (virsh define)", m.want.Name, vol.Pool, m.p.pool)
		}
		if err != nil || vol != nil {
			return err
		}
		if err := asleep(l, m.p.pool); err != nil {
			return err
		}
		return fmt.Errorf("machine %s had its disk when the plan was made, and that is gone from pool %s: a new one would begin as the image again, without what was written since; look where it went (is the pool's file system mounted?), or plan again to have the machine made anew", m.want.Name, m.p.pool)
	})
}

// volumesNamed are the files of volumes by name; those that aren't there have none.
func (p *Provider) volumesNamed(ctx context.Context, names []string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range names {
		file, _, err := p.lookForVolume(ctx, name)
		if err != nil {
			return nil, err
		}
		out[name] = file
	}
	return out, nil
}

// attach puts back the disks that the machine should have and would not start with.
func (m *making) attach(ctx context.Context) error {
	type missing struct{ file, format string }
	var all []missing
	if m.want.Image != "" {
		if err := m.p.conn.Do(ctx, "look at the disk of machine "+m.want.Name, func(l *libvirt.Libvirt) error {
			all = nil
			_, x, err := ownDisk(l, m.req.ID, m.p.homeOf(m.f, cty.NilVal))
			if err == nil && x.Target.Path != "" {
				all = append(all, missing{x.Target.Path, "qcow2"})
			}
			return err
		}); err != nil {
			return err
		}
	}
	for _, name := range m.want.Volumes {
		file, format, err := m.p.volumeNamed(ctx, name)
		if err != nil {
			return err
		}
		all = append(all, missing{file, format})
	}
	return m.p.conn.Do(ctx, "put back the disks of machine "+m.want.Name, func(l *libvirt.Libvirt) error {
		f, err := look(l, m.f.dom)
		if err != nil {
			return err
		}
		for _, d := range all {
			if f.x.hasDisk(d.file) {
				continue
			}
			dev := freeDev(f.x.Devices.Disks)
			text, err := toXML(struct {
				XMLName struct{} `xml:"disk"`
				xmlDisk
			}{xmlDisk: xmlDisk{Type: "file", Device: "disk", Driver: &xmlDriver{Name: "qemu", Type: d.format}, Source: xmlSource{File: d.file}, Target: xmlDiskDev{Dev: dev, Bus: "virtio"}}})
			if err != nil {
				return err
			}
			if err := l.DomainAttachDeviceFlags(f.dom, text, uint32(libvirt.DomainAffectConfig)); err != nil {
				return fmt.Errorf("put the disk %s back: %w", d.file, err)
			}
			f.x.Devices.Disks = append(f.x.Devices.Disks, xmlDisk{Source: xmlSource{File: d.file}, Target: xmlDiskDev{Dev: dev}})
		}
		m.f = f
		return nil
	})
}

// freeDev is the first place that no disk has: what was there before gets its own back.
func freeDev(disks []xmlDisk) string {
	for c := 'a'; ; c++ {
		dev := "vd" + string(c)
		if !slices.ContainsFunc(disks, func(d xmlDisk) bool { return d.Target.Dev == dev }) {
			return dev
		}
	}
}
