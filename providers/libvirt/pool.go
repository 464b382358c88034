package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// poolUUID is what tells a pool that was made here from others'.
func poolUUID(name string) libvirt.UUID { return derived("clusterplan pool " + name) }

// openPool gives a pool that runs. The provider's own is made where it isn't
// there; another one has to be.
func (p *Provider) openPool(l *libvirt.Libvirt, name string) (libvirt.StoragePool, error) {
	pool, err := l.StoragePoolLookupByName(name)
	switch {
	case err == nil:
	case !libvirtconn.NotFound(err):
		return pool, err
	case name != p.pool:
		return pool, noPool(l, name, p.conn.URI())
	default:
		text, err := toXML(xmlPool{Type: "dir", Name: name, UUID: uuidText(poolUUID(name)),
			Target: xmlTarget{Path: p.poolPath, Permissions: &xmlPermissions{Mode: "0711"}}})
		if err != nil {
			return pool, err
		}
		if pool, err = l.StoragePoolDefineXML(text, 0); err != nil {
			return pool, fmt.Errorf("make the storage pool %s in %s: %w; another pool has this directory, or it can't be one: name that pool with pool, or another directory with pool_path, in the provider block", name, p.poolPath, err)
		}
		p.log.Info("storage pool made", "pool", name, "path", p.poolPath)
	}
	active, err := l.StoragePoolIsActive(pool)
	if err != nil || active == 1 {
		return pool, err
	}
	if pool.UUID == poolUUID(name) {
		if err := l.StoragePoolBuild(pool, 0); err != nil {
			return pool, fmt.Errorf("make the directory %s of the storage pool %s: %w", p.poolPath, name, err)
		}
		if err := l.StoragePoolSetAutostart(pool, 1); err != nil {
			return pool, err
		}
	}
	if err := l.StoragePoolCreate(pool, 0); err != nil && !alreadyActive(err) {
		return pool, fmt.Errorf("start the storage pool %s: %w", name, err)
	}
	return pool, nil
}

func noPool(l *libvirt.Libvirt, name, uri string) error {
	pools, _, err := l.ConnectListAllStoragePools(1, 0)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	there := "it has none"
	if len(names) > 0 {
		there = "it has " + strings.Join(names, ", ")
	}
	return fmt.Errorf("%s has no storage pool %q (%s); without pool the provider's own is taken, which is made by itself", uri, name, there)
}

// alreadyActive: what was to be started runs.
func alreadyActive(err error) bool {
	return libvirtconn.Is(err, libvirt.ErrOperationInvalid) && (strings.Contains(err.Error(), "already active") || strings.Contains(err.Error(), "already running"))
}

// notActive: what was to be stopped doesn't run.
func notActive(err error) bool {
	return libvirtconn.Is(err, libvirt.ErrOperationInvalid) && (strings.Contains(err.Error(), "not active") || strings.Contains(err.Error(), "not running"))
}

// refresh has the pool see files that libvirt didn't make as volumes.
func refresh(l *libvirt.Libvirt, pool libvirt.StoragePool) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := l.StoragePoolRefresh(pool, 0)
		if err == nil || !strings.Contains(err.Error(), "asynchronous jobs") || time.Now().After(end) {
			return err
		}
	}
}

// room refuses what the pool has no room for, before it is half full.
func room(l *libvirt.Libvirt, pool libvirt.StoragePool, need int64, what string) error {
	free, err := freeIn(l, pool, need)
	if err != nil {
		return err
	}
	if need > free {
		return fmt.Errorf("the storage pool %s is full: %s needs %s, and %s are left; %s", pool.Name, what, spec.FormatSize(need), spec.FormatSize(free), makeRoom)
	}
	return nil
}

const makeRoom = "make room there, or name another pool"

// freeIn is the room in a pool. What libvirtd knows of it may be old: where that is less
// than is needed, somebody may have made room since.
func freeIn(l *libvirt.Libvirt, pool libvirt.StoragePool, need int64) (int64, error) {
	_, _, _, free, err := l.StoragePoolGetInfo(pool)
	if err != nil || int64(free) >= need {
		return int64(free), err
	}
	if err := refresh(l, pool); err != nil {
		return 0, err
	}
	_, _, _, free, err = l.StoragePoolGetInfo(pool)
	return int64(free), err
}

// full says what to do about a pool that has got full meanwhile.
func full(pool string, err error) error {
	if err == nil || !noSpace(err) {
		return err
	}
	return fmt.Errorf("the storage pool %s is full: %w; %s", pool, err, makeRoom)
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "No space left")
}

// createVolume makes a volume; one of its name is it.
func createVolume(l *libvirt.Libvirt, pool libvirt.StoragePool, x xmlVolume) (libvirt.StorageVol, error) {
	vol, err := l.StorageVolLookupByName(pool, x.Name)
	if err == nil || !libvirtconn.NotFound(err) {
		return vol, err
	}
	text, err := toXML(x)
	if err != nil {
		return vol, err
	}
	vol, err = l.StorageVolCreateXML(pool, text, 0)
	if libvirtconn.Is(err, libvirt.ErrStorageVolExist) {
		return l.StorageVolLookupByName(pool, x.Name)
	}
	if err != nil {
		return vol, fmt.Errorf("make the volume %s in the pool %s: %w", x.Name, pool.Name, err)
	}
	return vol, nil
}

func describe(l *libvirt.Libvirt, vol libvirt.StorageVol) (xmlVolume, error) {
	var x xmlVolume
	text, err := l.StorageVolGetXMLDesc(vol, 0)
	if err != nil {
		return x, err
	}
	return x, fromXML(text, &x)
}

// activePools are the pools that volumes of ours may be in.
func activePools(l *libvirt.Libvirt) ([]libvirt.StoragePool, error) {
	pools, _, err := l.ConnectListAllStoragePools(1, libvirt.ConnectListStoragePoolsActive)
	return pools, err
}

// asleep refuses to say that something isn't in a pool that doesn't run: its
// volumes can't be seen. A pool that isn't there has none.
func asleep(l *libvirt.Libvirt, name string) error {
	pool, err := l.StoragePoolLookupByName(name)
	if libvirtconn.NotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if active, err := l.StoragePoolIsActive(pool); err != nil || active == 1 {
		return err
	}
	return fmt.Errorf("the storage pool %s does not run, so that nobody can see what is in it; start it (virsh pool-start %s), and have it come up with the hypervisor (virsh pool-autostart %s)", name, name, name)
}

// home is where files of an object lie: people keep copies of disks in other pools, and
// under the same names.
type home struct {
	pool  string
	files []string // of it, as is known: others are beside them. None: it was never made whole
}

// homeOf is the home of a machine, as it is defined, or was.
func (p *Provider) homeOf(f *found, prior cty.Value) home {
	h := home{pool: p.pool}
	if f != nil && f.owner != nil {
		for _, d := range f.x.Devices.Disks {
			if isFileOf(path.Base(d.Source.File), f.owner.ID) {
				h.files = append(h.files, d.Source.File)
			}
		}
		for _, s := range f.x.Devices.Serials {
			if s.Log != nil {
				h.files = append(h.files, s.Log.File)
			}
		}
	}
	if console := text(prior, "console"); console != "" {
		h.files = append(h.files, console)
	}
	return h
}

// homeOfVolume is the home of a volume, as it was.
func (p *Provider) homeOfVolume(prior cty.Value) home {
	h := home{pool: cmp.Or(text(prior, "pool"), p.pool)}
	if file := text(prior, "path"); file != "" {
		h.files = []string{file}
	}
	return h
}

// lost tells whether all that was found is the mark of an upload, of an object that has
// been whole since: what it held is gone.
func (h home) lost(vol *libvirt.StorageVol) bool { return isMark(vol.Name) && len(h.files) > 0 }

// own are those of the volumes that lie there.
func (h home) own(l *libvirt.Libvirt, vols []libvirt.StorageVol) (own []libvirt.StorageVol, err error) {
	for _, v := range vols {
		here := v.Pool == h.pool
		if !here && len(h.files) > 0 {
			at, err := l.StorageVolGetPath(v)
			if libvirtconn.NotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			here = slices.ContainsFunc(h.files, func(file string) bool { return path.Dir(file) == path.Dir(at) })
		}
		if here {
			own = append(own, v)
		}
	}
	if len(own)+len(h.files) == 0 { // what was begun in a pool that is not known any more
		return vols, nil
	}
	return own, nil
}

// filesOf are the volumes of the object with the id.
func filesOf(l *libvirt.Libvirt, id string, h home) ([]libvirt.StorageVol, error) {
	pools, err := activePools(l)
	if err != nil {
		return nil, err
	}
	var out []libvirt.StorageVol
	for _, pool := range pools {
		vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
		if err != nil && !libvirtconn.NotFound(err) {
			return nil, err
		}
		for _, v := range vols {
			if isFileOf(v.Name, id) {
				out = append(out, v)
			}
		}
	}
	return h.own(l, out)
}

// deleteFiles removes the volumes of the object with the id, then what only they
// needed: images in the cache, and the pool itself if it is our own and empty.
func (p *Provider) deleteFiles(ctx context.Context, id string, h home) error {
	poolName := h.pool
	p.storage.Lock()
	defer p.storage.Unlock()
	return p.conn.Do(ctx, "remove the disks", func(l *libvirt.Libvirt) error {
		if pool, err := l.StoragePoolLookupByName(poolName); err == nil && pool.UUID == poolUUID(poolName) {
			if _, err := p.openPool(l, poolName); err != nil { // one that was made and not started yet goes, too
				return err
			}
		}
		if err := asleep(l, poolName); err != nil {
			return err
		}
		pools, err := activePools(l)
		if err != nil {
			return err
		}
		for _, pool := range pools {
			if pool.UUID == poolUUID(pool.Name) {
				if err := refresh(l, pool); err != nil { // the console's file is no volume before
					return err
				}
			}
		}
		vols, err := filesOf(l, id, h)
		if err != nil {
			return err
		}
		for _, v := range vols {
			if err := l.StorageVolDelete(v, 0); err != nil && !libvirtconn.NotFound(err) {
				return fmt.Errorf("remove the volume %s: %w", v.Name, err)
			}
		}
		for _, pool := range pools {
			if pool.Name == p.pool || slices.ContainsFunc(vols, func(v libvirt.StorageVol) bool { return v.Pool == pool.Name }) {
				if err := p.sweep(l, pool); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
