package libvirtconn

import "github.com/digitalocean/go-libvirt"

// Saved tells whether a machine that is off has its memory saved: its next start
// does not boot it, but goes on where the guest was.
func Saved(l *libvirt.Libvirt, dom libvirt.Domain) (bool, error) {
	has, err := l.DomainHasManagedSaveImage(dom, 0)
	if Is(err, libvirt.ErrNoSupport) { // a driver that saves none
		return false, nil
	}
	return has == 1, err
}

// Discard removes the saved memory of a machine that is off: a guest that goes on
// believes what it believed then, and a node in it that what it owned is still its.
func Discard(l *libvirt.Libvirt, dom libvirt.Domain) error {
	saved, err := Saved(l, dom)
	if err != nil || !saved {
		return err
	}
	return l.DomainManagedSaveRemove(dom, 0)
}
