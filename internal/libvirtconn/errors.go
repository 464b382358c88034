package libvirtconn

import (
	"errors"
	"slices"

	"github.com/digitalocean/go-libvirt"
)

// libvirtError is what libvirtd itself has said; nil: it was something else.
func libvirtError(err error) *libvirt.Error {
	var e libvirt.Error
	if errors.As(err, &e) {
		return &e
	}
	return nil
}

// Is tells whether libvirtd has answered with one of the errors.
func Is(err error, codes ...libvirt.ErrorNumber) bool {
	e := libvirtError(err)
	return e != nil && slices.Contains(codes, libvirt.ErrorNumber(e.Code))
}

// NotFound tells whether libvirtd has said that there is no such machine,
// network, pool or volume.
func NotFound(err error) bool {
	return Is(err, libvirt.ErrNoDomain, libvirt.ErrNoNetwork, libvirt.ErrNoStoragePool, libvirt.ErrNoStorageVol, libvirt.ErrNoDomainMetadata)
}
