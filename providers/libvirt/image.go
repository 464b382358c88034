package libvirt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
)

// imageFile is a file of this machine that the hypervisor is to have.
type imageFile struct {
	path     string
	size     int64
	modified time.Time
	digest   string // sha256, hexadecimal
	format   string // qcow2 or raw
	virtual  int64  // size of the disk in it
}

// name is what it is called in the cache: content, not where it came from.
func (f imageFile) name() string { return imagePrefix + f.digest }

// fileOfUser is where a file lies that a definition names.
func (p *Provider) fileOfUser(path string) string {
	if path = expandHome(path); filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.base, path)
}

// openImage looks at a file. want is the digest that it must have, or "".
func (p *Provider) openImage(ctx context.Context, attribute, path, want string) (imageFile, error) {
	at := cty.GetAttrPath(attribute)
	full := p.fileOfUser(path)
	info, err := os.Stat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return imageFile{}, at.NewErrorf("there is no file %s (%s = %q): make or download it, or name another one; a relative path begins at the definition's directory", full, attribute, path)
	case err != nil:
		return imageFile{}, at.NewErrorf("%s: %w", attribute, err)
	case !info.Mode().IsRegular():
		return imageFile{}, at.NewErrorf("%s is no file (%s = %q)", full, attribute, path)
	}
	f := imageFile{path: full, size: info.Size(), modified: info.ModTime()}
	p.mu.Lock()
	known, ok := p.digests[full]
	p.mu.Unlock()
	if ok && known.size == f.size && known.modified.Equal(f.modified) {
		f = known
	} else if err := f.read(ctx); err != nil {
		if ctx.Err() != nil {
			return f, err
		}
		return f, at.NewErrorf("%s: %w", attribute, err)
	}
	p.mu.Lock()
	p.digests[full] = f
	p.mu.Unlock()
	if want != "" && want != "sha256:"+f.digest {
		return f, cty.GetAttrPath("image_digest").NewErrorf("%s has the digest sha256:%s, and the definition says %s: it is another file than the one that was meant; get that one, or put its digest into image_digest", full, f.digest, want)
	}
	return f, nil
}

// read works out digest, format and size.
func (f *imageFile) read(ctx context.Context) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	head := make([]byte, 32)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	f.format, f.virtual = "raw", f.size
	if n == len(head) && string(head[:4]) == "QFI\xfb" {
		f.format, f.virtual = "qcow2", int64(binary.BigEndian.Uint64(head[24:]))
		if binary.BigEndian.Uint64(head[8:]) != 0 {
			return fmt.Errorf("%s stands on another file, which the hypervisor would not find; make it whole with qemu-img convert -O qcow2", f.path)
		}
	}
	sum := sha256.New()
	sum.Write(head[:n])
	if _, err := io.Copy(sum, &reading{ctx: ctx, r: file}); err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	f.digest = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// reading ends with its context, and counts.
type reading struct {
	ctx   context.Context
	r     io.Reader
	count *atomic.Int64
	tell  func(done int64)
}

func (r *reading) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(b)
	if r.count != nil {
		done := r.count.Add(int64(n))
		if r.tell != nil {
			r.tell(done)
		}
	}
	return n, err
}

// errChanged is a file that is not what it was when its digest was worked out.
var errChanged = errors.New("it has changed")

// whole gives the last byte of what it reads only once all of it has the digest: what
// was sent of a file that changes meanwhile never gets the length by which others, or
// a next apply, take it for the image.
type whole struct {
	r      io.Reader
	sum    hash.Hash
	digest string
	held   []byte // the last byte so far
	end    bool
}

func (w *whole) Read(b []byte) (int, error) {
	if w.end {
		if len(w.held) == 0 {
			return 0, io.EOF
		}
		n := copy(b, w.held)
		w.held = w.held[n:]
		return n, nil
	}
	n, err := w.r.Read(b)
	w.sum.Write(b[:n])
	if err == io.EOF {
		if hex.EncodeToString(w.sum.Sum(nil)) != w.digest {
			return 0, errChanged
		}
		w.end, w.held = true, append(w.held, b[:n]...)
		return 0, nil
	}
	if n > 0 {
		last := b[n-1]
		if len(w.held) == 0 {
			n--
		} else {
			copy(b[1:n], b[:n-1])
			b[0] = w.held[0]
		}
		w.held = []byte{last}
	}
	return n, err
}

// cache has the pool hold the image and gives its path there. The caller holds
// p.storage, and the image's name (hold). An image is nobody's by its name: one that
// an apply leaves half way is found, and goes, with the object that it was uploaded
// for, by an empty file of that one (mark), which the caller removes when it stands.
func (p *Provider) cache(ctx context.Context, poolName string, f imageFile, mark string, progress func(string)) (string, error) {
	var path string
	there, err := p.cached(ctx, poolName, f, &path)
	if err != nil || there {
		return path, err
	}
	if err := p.conn.Do(ctx, "begin to upload "+filepath.Base(f.path), func(l *libvirt.Libvirt) error {
		pool, err := p.openPool(l, poolName)
		if err == nil {
			_, err = createVolume(l, pool, xmlVolume{Name: mark, Capacity: &xmlBytes{}, Target: xmlTarget{Format: &xmlFormat{Type: "raw"}}})
		}
		return err
	}); err != nil {
		return "", full(poolName, err)
	}
	for tries := 1; ; tries++ {
		// Who looked before the mark was there may have removed it on the way.
		if err := p.upload(ctx, poolName, f.name(), f.path, f.size, f.digest, progress, &path); !libvirtconn.NotFound(err) || tries == 3 {
			return path, err
		}
	}
}

// unmark removes what cache has left of an object that stands now.
func unmark(l *libvirt.Libvirt, pool libvirt.StoragePool, mark string) error {
	vol, err := l.StorageVolLookupByName(pool, mark)
	if err == nil {
		err = l.StorageVolDelete(vol, 0)
	}
	if libvirtconn.NotFound(err) {
		return nil
	}
	return err
}

// cached tells whether the pool holds all of the image. What an upload that was
// cut off has left is removed: it is shorter, and doesn't grow.
func (p *Provider) cached(ctx context.Context, poolName string, f imageFile, path *string) (bool, error) {
	var was int64 = -1
	for same := 0; ; {
		var size int64 = -1
		err := p.conn.Do(ctx, "look for the image "+filepath.Base(f.path), func(l *libvirt.Libvirt) error {
			size = -1
			pool, err := p.openPool(l, poolName)
			if err != nil {
				return err
			}
			vol, err := l.StorageVolLookupByName(pool, f.name())
			if libvirtconn.NotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if *path, err = l.StorageVolGetPath(vol); err != nil {
				return err
			}
			if size, err = physical(l, vol); err == nil && size != f.size && same >= 5 {
				size = -1
				return l.StorageVolDelete(vol, 0)
			}
			return err
		})
		switch {
		case err != nil || size == -1:
			return false, err
		case size == f.size:
			return true, nil
		case size == was:
			same++
		default:
			was, same = size, 0
		}
		select {
		case <-time.After(p.stall):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// physical is the length of a volume's file.
func physical(l *libvirt.Libvirt, vol libvirt.StorageVol) (int64, error) {
	const getPhysical = 1 // VIR_STORAGE_VOL_GET_PHYSICAL
	_, _, size, err := l.StorageVolGetInfoFlags(vol, getPhysical)
	return int64(size), err
}

// upload makes a volume of a file of this machine and checks that what
// went over the wire is what was meant.
func (p *Provider) upload(ctx context.Context, poolName, name, file string, size int64, digest string, progress func(string), path *string) error {
	what := filepath.Base(file)
	var count atomic.Int64
	told := int64(-1)
	err := p.conn.DoLong(ctx, "upload "+what, count.Load, func(l *libvirt.Libvirt) error {
		pool, err := p.openPool(l, poolName)
		if err != nil {
			return err
		}
		if err := room(l, pool, size, what); err != nil {
			return err
		}
		src, err := os.Open(file)
		if err != nil {
			return err
		}
		defer src.Close()
		// Without a capacity: the file grows as it comes, so that its length tells
		// whether all of it is there.
		vol, err := createVolume(l, pool, xmlVolume{Name: name, Capacity: &xmlBytes{}, Allocation: &xmlBytes{},
			Target: xmlTarget{Format: &xmlFormat{Type: "raw"}, Permissions: &xmlPermissions{Mode: "0644"}}})
		if err != nil {
			return err
		}
		if *path, err = l.StorageVolGetPath(vol); err != nil {
			return err
		}
		count.Store(0)
		r := &reading{ctx: ctx, r: src, count: &count, tell: func(done int64) {
			if tenth := done * 10 / max(size, 1); tenth != told && size > 16<<20 {
				told = tenth
				progress(fmt.Sprintf("uploading %s, %d%%", what, tenth*10))
			}
		}}
		err = p.send(ctx, l, vol, &whole{r: r, sum: sha256.New(), digest: digest}, size)
		if err != nil && !errors.Is(err, errChanged) {
			if noSpace(err) { // what has come of it is of no use, and others want room
				if err := l.StorageVolDelete(vol, 0); err != nil {
					p.log.Info("a part of an image stays until the next apply", "image", name, "err", err)
				}
			}
			return err
		}
		got, look := physical(l, vol)
		if look != nil {
			return look
		}
		var short error
		if err == nil && got < size { // the error for it may come too late
			if free, err := freeIn(l, pool, size-got); err == nil && free < size-got {
				short = fmt.Errorf("%d of its bytes have not arrived: %w", size-got, syscall.ENOSPC)
			}
		}
		if err != nil || got != size {
			if err := l.StorageVolDelete(vol, 0); err != nil {
				return err
			}
			if short != nil {
				return short
			}
			return fmt.Errorf("%s changed while it was uploaded; apply again when nothing writes it", file)
		}
		return nil
	})
	return full(poolName, err)
}

// send writes a volume's content.
func (p *Provider) send(ctx context.Context, l *libvirt.Libvirt, vol libvirt.StorageVol, r io.Reader, size int64) error {
	return l.StorageVolUpload(vol, &ending{p: p, ctx: ctx, vol: vol, r: r, size: size}, 0, uint64(size), 0)
}

// ending keeps a stream open until its volume has all of it: an error that libvirtd
// sends after the stream's end, as of the last bytes that it had no room for, is one
// that go-libvirt waits on for ever (it is to tell a sender that has ended).
type ending struct {
	p    *Provider
	ctx  context.Context
	vol  libvirt.StorageVol
	r    io.Reader
	size int64
	was  int64
	end  time.Time // it has not grown since; zero: not all is sent
}

func (e *ending) Read(b []byte) (int, error) {
	if e.end.IsZero() {
		n, err := e.r.Read(b)
		if err != io.EOF {
			return n, err
		}
		if e.end = time.Now().Add(10 * e.p.stall); n > 0 {
			return n, nil
		}
	}
	var has int64
	if err := e.p.conn.Do(e.ctx, "look at "+e.vol.Name, func(l *libvirt.Libvirt) (err error) {
		has, err = physical(l, e.vol)
		return err
	}); err != nil || has >= e.size || time.Now().After(e.end) {
		return 0, io.EOF // what is wrong with it the caller sees
	}
	if has != e.was {
		e.was, e.end = has, time.Now().Add(10*e.p.stall)
	}
	select {
	case <-time.After(20 * time.Millisecond):
	case <-e.ctx.Done():
		return 0, e.ctx.Err()
	}
	return 0, nil // the sender looks whether it is to end
}

// uploadBytes is upload of what this program has made itself.
func (p *Provider) uploadBytes(ctx context.Context, poolName, name string, data []byte) (path string, err error) {
	err = p.conn.Do(ctx, "upload "+name, func(l *libvirt.Libvirt) error {
		pool, err := p.openPool(l, poolName)
		if err != nil {
			return err
		}
		vol, err := createVolume(l, pool, xmlVolume{Name: name, Capacity: &xmlBytes{}, Allocation: &xmlBytes{}, Target: xmlTarget{Format: &xmlFormat{Type: "raw"}}})
		if err != nil {
			return err
		}
		if path, err = l.StorageVolGetPath(vol); err != nil {
			return err
		}
		return p.send(ctx, l, vol, bytes.NewReader(data), int64(len(data)))
	})
	return path, full(poolName, err)
}
