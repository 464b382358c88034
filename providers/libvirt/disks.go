package libvirt

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/digitalocean/go-libvirt"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
)

// What is wrong with a machine's disks. One that was taken off is put back in place,
// which reboots the machine; without its own disk it is made anew; of a volume that is
// made anew it has to let go of the old one.
const (
	healthDiskGone     = "its disk is gone"
	healthDiskDetached = "its disk is detached"
	volumeGone         = "volume %s is gone"
	volumeDetached     = "volume %s is detached"
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
	if f.owner == nil || want.Image == "" && len(want.Volumes) == 0 {
		return s, nil
	}
	volumes, err := p.volumesNamed(ctx, want.Volumes)
	if err != nil {
		return s, err
	}
	err = p.conn.Do(ctx, "look at the disks of machine "+f.x.Name, func(l *libvirt.Libvirt) error {
		s = diskState{}
		has, err := diskFiles(l, f)
		if err != nil {
			return err
		}
		if want.Image != "" {
			vol, x, err := ownDisk(l, f.owner.ID)
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
		return nil
	})
	return s, err
}

// diskFiles tells which files a machine has as disks: as it runs and for its next start.
func diskFiles(l *libvirt.Libvirt, f *found) (func(file string) bool, error) {
	ways := []xmlMachine{f.x}
	active, err := l.DomainIsActive(f.dom)
	if err != nil {
		return nil, err
	}
	if active == 1 {
		var now xmlMachine
		text, err := l.DomainGetXMLDesc(f.dom, 0)
		if err = errors.Join(err, fromXML(text, &now)); err != nil {
			return nil, err
		}
		ways = append(ways, now)
	}
	return func(file string) bool {
		return !slices.ContainsFunc(ways, func(x xmlMachine) bool { return !x.hasDisk(file) })
	}, nil
}

func (m *xmlMachine) hasDisk(file string) bool {
	return slices.ContainsFunc(m.Devices.Disks, func(d xmlDisk) bool { return d.Source.File == file })
}

// ownDisk is the volume that a machine's own disk is; nil: it is gone.
func ownDisk(l *libvirt.Libvirt, id string) (*libvirt.StorageVol, xmlVolume, error) {
	files, err := filesOf(l, id)
	if err != nil {
		return nil, xmlVolume{}, err
	}
	for _, v := range files {
		if !strings.HasSuffix(v.Name, "."+diskFile) {
			continue
		}
		x, err := describe(l, v)
		if libvirtconn.NotFound(err) {
			return nil, x, nil
		}
		return &v, x, err
	}
	return nil, xmlVolume{}, nil
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
			_, x, err := ownDisk(l, m.req.ID)
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
