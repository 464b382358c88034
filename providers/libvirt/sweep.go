package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
)

// Two runs may meet at an image: one removes it, for nothing stands on it, and the
// other is about to use it. libvirtd has no lock, so each says what it does before it
// looks at what the other does. Who removes makes a mark of its own beside the image,
// looks again whether something needs it, removes it, and the mark. Who uses it makes
// what stands on it, then looks for marks, waits until they are gone, and brings the
// image back if that is gone too (settle): the path is the same, for it is the content's.
// Whichever is first, the other one sees it. Two that remove have a mark each: one's
// end says nothing of the other, which may have looked already and not removed yet.
// While anybody uploads (an upload's mark tells), no image is removed: nothing stands on
// one yet.

// markSuffix is of a mark's name, behind the image's and whose it is.
const markSuffix = ".going"

// goingMark is the provider's mark of an image.
func (p *Provider) goingMark(image string) string { return image + "." + p.run + markSuffix }

// isGoing gives the image that a mark is of.
func isGoing(volume string) (image string, is bool) {
	rest, is := strings.CutSuffix(volume, markSuffix)
	image, _, _ = strings.Cut(rest, ".")
	return image, is && isImage(image)
}

// needs are the files that volumes of the pool and machines stand on, and images those
// that may go where they are not among them.
func (p *Provider) needs(l *libvirt.Libvirt, pool libvirt.StoragePool, vols []libvirt.StorageVol, images map[string]libvirt.StorageVol) (map[string]bool, error) {
	needed, uploads := map[string]bool{}, false
	for _, v := range vols {
		x, err := describe(l, v)
		if libvirtconn.NotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if x.Backing != nil {
			needed[x.Backing.Path] = true
		}
		if isImage(v.Name) {
			images[x.Target.Path] = v
		}
		uploads = uploads || isMark(v.Name)
	}
	if uploads {
		clear(images)
	}
	if len(images) == 0 {
		return needed, nil
	}
	if err := machinesNeed(l, needed); err != nil {
		return nil, err
	}
	for at := range images {
		if !needed[at] { // it goes, unless a copy of a disk that somebody keeps elsewhere stands on it
			return needed, othersNeed(l, pool, needed)
		}
	}
	return needed, nil
}

// othersNeed notes the files that volumes of other pools stand on.
func othersNeed(l *libvirt.Libvirt, but libvirt.StoragePool, needed map[string]bool) error {
	pools, err := activePools(l)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		if pool.UUID == but.UUID {
			continue
		}
		vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
		if err != nil && !libvirtconn.NotFound(err) {
			return err
		}
		for _, v := range vols {
			x, err := describe(l, v)
			if libvirtconn.NotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			if x.Backing != nil {
				needed[x.Backing.Path] = true
			}
		}
	}
	return nil
}

// sweep removes images that nothing stands on, and the pool with the last of
// its volumes if it was made here.
func (p *Provider) sweep(l *libvirt.Libvirt, pool libvirt.StoragePool) error {
	list := func() ([]libvirt.StorageVol, error) {
		vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
		return vols, err
	}
	vols, err := list()
	if err != nil {
		return err
	}
	images := map[string]libvirt.StorageVol{}
	needed, err := p.needs(l, pool, vols, images)
	if err != nil {
		return err
	}
	var going []libvirt.StorageVol
	for path, v := range images {
		if !needed[path] && !p.isUsing(v.Name) {
			going = append(going, v)
		}
	}
	if len(going) > 0 {
		if err := p.removeImages(l, pool, going); err != nil {
			return err
		}
		if vols, err = list(); err != nil {
			return err
		}
	}
	if pool.UUID != poolUUID(pool.Name) {
		return nil
	}
	// Nothing but marks of others: of a run that ended in the middle, or is just about to
	// take its mark away.
	for end := time.Now().Add(3 * p.stall); ; time.Sleep(p.stall / 5) {
		stray := slices.DeleteFunc(slices.Clone(vols), func(v libvirt.StorageVol) bool { _, is := isGoing(v.Name); return !is })
		if len(stray) < len(vols) {
			return nil
		}
		if len(stray) == 0 {
			break
		}
		if time.Now().After(end) {
			for _, v := range stray {
				if err := l.StorageVolDelete(v, 0); err != nil && !libvirtconn.NotFound(err) {
					return err
				}
			}
		}
		if vols, err = list(); err != nil {
			return err
		}
	}
	if err := l.StoragePoolDestroy(pool); err != nil && !notActive(err) {
		return err
	}
	// Its directory stays where something else lies in it.
	if err := l.StoragePoolDelete(pool, libvirt.StoragePoolDeleteNormal); err != nil {
		p.log.Info("the directory of the storage pool stays", "path", p.poolPath, "err", err)
	}
	if err := l.StoragePoolUndefine(pool); err != nil && !libvirtconn.NotFound(err) {
		return err
	}
	return nil
}

// removeImages removes those of the images that nothing needs once they are marked.
func (p *Provider) removeImages(l *libvirt.Libvirt, pool libvirt.StoragePool, going []libvirt.StorageVol) error {
	var marks []libvirt.StorageVol
	unmark := func() error {
		var failed error
		for _, m := range marks {
			if err := l.StorageVolDelete(m, 0); err != nil && !libvirtconn.NotFound(err) {
				failed = err
			}
		}
		return failed
	}
	remove := func() error {
		for _, v := range going {
			m, err := createVolume(l, pool, xmlVolume{Name: p.goingMark(v.Name), Capacity: &xmlBytes{}, Allocation: &xmlBytes{}, Target: xmlTarget{Format: &xmlFormat{Type: "raw"}}})
			if err != nil {
				return err
			}
			marks = append(marks, m)
		}
		if p.marked != nil {
			p.marked()
		}
		vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
		if err != nil {
			return err
		}
		images := map[string]libvirt.StorageVol{}
		needed, err := p.needs(l, pool, vols, images)
		if err != nil {
			return err
		}
		if p.looked != nil {
			p.looked()
		}
		for path, v := range images {
			if needed[path] || p.isUsing(v.Name) || !slices.ContainsFunc(going, func(g libvirt.StorageVol) bool { return g.Name == v.Name }) {
				continue
			}
			// To look takes long where there is much: who takes this run for dead has taken
			// its mark away, and uses the image.
			if _, err := l.StorageVolLookupByName(pool, p.goingMark(v.Name)); libvirtconn.NotFound(err) {
				continue
			} else if err != nil {
				return err
			}
			if err := l.StorageVolDelete(v, 0); err != nil && !libvirtconn.NotFound(err) {
				return fmt.Errorf("remove the image %s, which nothing needs any more: %w", v.Name, err)
			}
		}
		return nil
	}
	err := remove()
	return cmp.Or(err, unmark())
}

// settle has an image be there for good that something stands on by now. The caller
// holds p.storage.
func (p *Provider) settle(ctx context.Context, poolName string, f imageFile, progress func(string)) error {
	for end := time.Now().Add(10 * p.stall); ; {
		marked := false
		if err := p.conn.Do(ctx, "look whether the image "+f.name()+" is being removed", func(l *libvirt.Libvirt) error {
			pool, err := p.openPool(l, poolName)
			if err != nil {
				return err
			}
			vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
			if err != nil {
				return err
			}
			marked = false
			for _, v := range vols {
				if image, is := isGoing(v.Name); !is || image != f.name() {
					continue
				}
				marked = true              // also one that goes now: who has just seen it there may still remove
				if time.Now().After(end) { // its maker has ended in the middle
					if err := l.StorageVolDelete(v, 0); err != nil && !libvirtconn.NotFound(err) {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return err
		}
		if !marked {
			var path string
			there, err := p.cached(ctx, poolName, f, &path)
			if err != nil || there {
				return err
			}
			return p.upload(ctx, poolName, f.name(), f.path, f.size, f.digest, progress, &path)
		}
		select {
		case <-time.After(p.stall / 5):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// machinesNeed notes the files that machines boot from directly.
func machinesNeed(l *libvirt.Libvirt, needed map[string]bool) error {
	doms, _, err := l.ConnectListAllDomains(1, 0)
	if err != nil {
		return err
	}
	for _, d := range doms {
		text, err := l.DomainGetXMLDesc(d, libvirt.DomainXMLInactive)
		if libvirtconn.NotFound(err) {
			continue
		}
		var x xmlMachine
		if err = errors.Join(err, fromXML(text, &x)); err != nil {
			return err
		}
		needed[x.OS.Kernel], needed[x.OS.Initrd] = true, true
		for _, disk := range x.Devices.Disks {
			needed[disk.Source.File] = true
		}
	}
	return nil
}

// hold keeps an image from being swept while what needs it is being made.
func (p *Provider) hold(image string) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.using[image]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.using[image]--
	}
}

func (p *Provider) isUsing(image string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.using[image] > 0
}
