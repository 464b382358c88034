package libvirt

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/providers"
)

// applyVolume makes a volume, or has it grow.
func (p *Provider) applyVolume(ctx context.Context, req providers.ApplyRequest) (*providers.Object, error) {
	var want volumeSpec
	if err := schema.DecodeKnown(req.Planned, &want); err != nil {
		return nil, err
	}
	if foreignID(req.ID) && req.Phase == providers.PhaseCreate {
		return nil, fmt.Errorf("volume %s is gone and was not made here; make it again, or remove its import", req.ID)
	}
	size := sizeOf(want.Size)
	home := p.homeOfVolume(req.Planned)
	if req.Phase == providers.PhaseUpdate {
		if err := p.stillThere(ctx, want.Name, req.ID, home); err != nil {
			return nil, err
		}
	}
	if !foreignID(req.ID) {
		if _, err := p.disk(ctx, diskRequest{
			pool: cmp.Or(want.Pool, p.pool), name: fileOf(want.Name, req.ID, volumeFile), mark: fileOf(want.Name, req.ID, uploadFile),
			attribute: "image", image: want.Image, digest: want.ImageDigest, size: size, progress: req.Progress,
		}); err != nil {
			return nil, err
		}
	}
	err := p.conn.Do(ctx, "size volume "+want.Name, func(l *libvirt.Libvirt) error {
		vol, x, err := findVolume(l, req.ID, home)
		if err != nil {
			return err
		}
		if vol == nil {
			return fmt.Errorf("volume %s went away while it was made", want.Name)
		}
		if size <= x.Capacity.bytes() {
			return nil
		}
		if err := l.StorageVolResize(*vol, uint64(size), 0); err != nil {
			return cty.GetAttrPath("size").NewErrorf("grow the volume to %s: %w; while a machine uses it, it can't", want.Size, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p.readVolume(ctx, req.ID, req.Planned)
}

// stillThere refuses to change a volume that went after the plan was made: what would
// be made in its place is empty, and no plan has said so.
func (p *Provider) stillThere(ctx context.Context, name, id string, h home) error {
	return p.conn.Do(ctx, "look for volume "+name, func(l *libvirt.Libvirt) error {
		vol, _, err := findVolume(l, id, h)
		if err != nil || vol != nil && !h.lost(vol) {
			return err
		}
		if err := asleep(l, h.pool); err != nil {
			return err
		}
		return fmt.Errorf("volume %s was there when the plan was made and is gone from pool %s: a new one would be empty; look where it went (is the pool's file system mounted?), or plan again to have it made anew", name, h.pool)
	})
}

// diskRequest asks for a volume.
type diskRequest struct {
	pool, name, mark         string
	attribute, image, digest string // image "": an empty one
	size                     int64  // 0: the image's
	progress                 func(string)
}

// disk makes a volume that begins as an image, or empty, and gives its path.
// The image is in the pool once, and read only: the volume stands on it.
func (p *Provider) disk(ctx context.Context, r diskRequest) (path string, err error) {
	x := xmlVolume{Name: r.name, Target: xmlTarget{Format: &xmlFormat{Type: "qcow2"}}}
	var img imageFile
	if r.image != "" {
		if img, err = p.openImage(ctx, r.attribute, r.image, r.digest); err != nil {
			return "", err
		}
		if r.size == 0 {
			r.size = img.virtual
		}
		if r.size < img.virtual {
			return "", fmt.Errorf("the disk is to have %s, and the image %s has %s already: make it as big, or leave its size out", sizeText(r.size, ""), r.image, sizeText(img.virtual, ""))
		}
		defer p.hold(img.name())()
	}
	x.Capacity = &xmlBytes{Unit: "bytes", Value: r.size}
	p.storage.Lock()
	defer p.storage.Unlock()
	if r.image == "" {
		return p.makeDisk(ctx, r, x)
	}
	for tries := 1; ; tries++ {
		base, err := p.cache(ctx, r.pool, img, r.mark, r.progress)
		if err != nil {
			return "", err
		}
		x.Backing = &xmlBackFile{Path: base, Format: &xmlFormat{Type: img.format}}
		if path, err = p.makeDisk(ctx, r, x); err == nil {
			return path, p.settle(ctx, r.pool, img, r.progress)
		}
		if there, look := p.cached(ctx, r.pool, img, &base); there || look != nil || tries == 3 {
			return "", err
		}
		// Another run removed the image before anything stood on it.
	}
}

// makeDisk makes the volume.
func (p *Provider) makeDisk(ctx context.Context, r diskRequest, x xmlVolume) (path string, err error) {
	err = p.conn.Do(ctx, "make the disk "+r.name, func(l *libvirt.Libvirt) error {
		pool, err := p.openPool(l, r.pool)
		if err != nil {
			return err
		}
		vol, err := createVolume(l, pool, x)
		if err != nil {
			return err
		}
		if path, err = l.StorageVolGetPath(vol); err != nil {
			return err
		}
		return unmark(l, pool, r.mark)
	})
	return path, full(r.pool, err)
}

// findVolume finds a volume by its object's id; nil: there is none.
func findVolume(l *libvirt.Libvirt, id string, h home) (*libvirt.StorageVol, xmlVolume, error) {
	var vol libvirt.StorageVol
	if pool, name, is := strings.Cut(id, "/"); is {
		sp, err := l.StoragePoolLookupByName(pool)
		if err == nil {
			vol, err = l.StorageVolLookupByName(sp, name)
		}
		if libvirtconn.NotFound(err) {
			return nil, xmlVolume{}, nil
		}
		if err != nil {
			return nil, xmlVolume{}, err
		}
	} else {
		files, err := filesOf(l, id, h)
		if err != nil || len(files) == 0 {
			return nil, xmlVolume{}, err
		}
		vol = files[0]
		for _, f := range files {
			if !isMark(f.Name) {
				vol = f
			}
		}
	}
	x, err := describe(l, vol)
	if libvirtconn.NotFound(err) {
		return nil, x, nil
	}
	return &vol, x, err
}

// readVolume says what is there; prior has what can't be seen.
func (p *Provider) readVolume(ctx context.Context, id string, prior cty.Value) (*providers.Object, error) {
	var o *providers.Object
	err := p.conn.Do(ctx, "read volume "+id, func(l *libvirt.Libvirt) error {
		o = nil
		vol, x, err := findVolume(l, id, p.homeOfVolume(prior))
		if err == nil && (vol == nil || p.homeOfVolume(prior).lost(vol)) {
			pool, _, foreign := strings.Cut(id, "/")
			if !foreign {
				pool = cmp.Or(text(prior, "pool"), p.pool)
			}
			return asleep(l, pool)
		}
		if err != nil {
			return err
		}
		attrs := schema.BlockDefault(blockOf(volumeSchema().WithIdentity())).AsValueMap()
		attrs["provider"] = cty.StringVal(Name)
		name, _, _ := strings.Cut(vol.Name, "."+id+".")
		attrs["name"] = cty.StringVal(name)
		if isMark(vol.Name) {
			o = &providers.Object{ID: id, Value: cty.ObjectVal(attrs), Health: []string{"its image is not uploaded yet"}}
			if prior != cty.NilVal && prior.IsWhollyKnown() {
				o.Value, _ = prior.UnmarkDeep()
			}
			return nil
		}
		if vol.Pool != p.pool || text(prior, "pool") != "" {
			attrs["pool"] = cty.StringVal(vol.Pool)
		}
		was := text(prior, "size")
		attrs["size"] = cty.StringVal(sizeText(x.Capacity.bytes(), was))
		if was == "" && text(prior, "image") != "" {
			attrs["size"] = cty.NullVal(cty.String) // the image's, whatever that was
		}
		attrs["path"] = cty.StringVal(x.Target.Path)
		o = &providers.Object{ID: id, Value: cty.ObjectVal(attrs)}
		if prior != cty.NilVal {
			prior, _ = prior.UnmarkDeep()
			o.Value = asDefined(o.Value, prior, "image", "image_digest")
		}
		// One that was made whole (qemu-img rebase) has what it had. One on another image
		// has not: where the definition says which, that makes it anew.
		if x.Backing != nil && text(prior, "image_digest") != "" {
			if image := filepath.Base(x.Backing.Path); isImage(image) {
				attrs = o.Value.AsValueMap()
				attrs["image_digest"] = cty.StringVal("sha256:" + strings.TrimPrefix(image, imagePrefix))
				o.Value = cty.ObjectVal(attrs)
			}
		}
		return nil
	})
	return o, err
}

// deleteVolume removes a volume, also one that was never finished.
func (p *Provider) deleteVolume(ctx context.Context, id string, h home) error {
	if foreignID(id) {
		return p.conn.Do(ctx, "remove volume "+id, func(l *libvirt.Libvirt) error {
			vol, _, err := findVolume(l, id, h)
			if err != nil || vol == nil {
				return err
			}
			return l.StorageVolDelete(*vol, 0)
		})
	}
	return p.deleteFiles(ctx, id, h)
}
