package libvirt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// examination is a look at a hypervisor for what its objects need. It changes
// nothing there.
type examination struct {
	p     *Provider
	found []providers.Finding
	all   []addr.Address

	networks []wantedNetwork
	machines []wantedMachine
	files    map[string]addr.Address // images, kernels and initramfses that are still to be read
	pools    map[string][]addr.Address
}

type wantedNetwork struct {
	networkSpec
	at   addr.Address
	id   string
	made bool
}

type wantedMachine struct {
	machineSpec
	at   addr.Address
	id   string
	made bool
}

// Examine looks whether the hypervisor can be reached, and has what networks,
// volumes and machines need.
func (p *Provider) Examine(ctx context.Context, e providers.Examination) []providers.Finding {
	x := &examination{p: p, files: map[string]addr.Address{}, pools: map[string][]addr.Address{}}
	for _, o := range e.Objects {
		if o.Config != cty.NilVal && !o.Config.IsNull() {
			x.want(o)
		}
	}
	err := p.conn.Do(ctx, "look at the hypervisor", func(l *libvirt.Libvirt) error {
		x.found = nil
		return x.hypervisor(l)
	})
	if err != nil {
		x.found = nil
		x.add(providers.CheckConnection, providers.LevelFail, err.Error(), "", x.all...)
	}
	x.images()
	return x.found
}

func (x *examination) add(check, level, what, advice string, of ...addr.Address) {
	at := slices.Clone(of)
	slices.SortFunc(at, addr.Compare)
	if at == nil {
		at = []addr.Address{}
	}
	x.found = append(x.found, providers.Finding{Where: x.p.conn.URI(), Check: check, Level: level, Found: what, Advice: advice, Objects: slices.Compact(at)})
}

// want notes what an object needs, as far as its definition is known.
func (x *examination) want(o providers.Examinee) {
	config, _ := o.Config.UnmarkDeep()
	made := o.Prior != nil
	x.all = append(x.all, o.Addr)
	file := func(path string) {
		if path != "" && !made {
			x.files[path] = o.Addr
		}
	}
	switch o.Addr.Type {
	case addr.TypeNetwork:
		n := wantedNetwork{at: o.Addr, id: o.ID, made: made}
		if schema.DecodeKnown(config, &n.networkSpec) == nil {
			x.networks = append(x.networks, n)
		}
	case addr.TypeVolume:
		var v volumeSpec
		if schema.DecodeKnown(config, &v) == nil {
			pool := cmp.Or(v.Pool, x.p.pool)
			x.pools[pool] = append(x.pools[pool], o.Addr)
			file(v.Image)
		}
	case addr.TypeMachine:
		m := wantedMachine{at: o.Addr, id: o.ID, made: made}
		if schema.DecodeKnown(config, &m.machineSpec) == nil {
			x.machines = append(x.machines, m)
			x.pools[x.p.pool] = append(x.pools[x.p.pool], o.Addr)
			file(m.Image)
			file(m.Kernel)
			file(m.Initrd)
		}
	}
}

func (x *examination) hypervisor(l *libvirt.Libvirt) error {
	driver, err := l.ConnectGetType()
	if err != nil {
		return err
	}
	version, err := l.ConnectGetLibVersion()
	if err != nil {
		return err
	}
	x.add("libvirtd", providers.LevelOK, fmt.Sprintf("libvirt %s answers, and lets you manage machines", versionText(version)), "", x.all...)
	if driver == "QEMU" && len(x.machines) > 0 {
		x.accelerators(l)
	}
	if err := x.storage(l); err != nil {
		return err
	}
	if err := x.names(l); err != nil {
		return err
	}
	return x.subnets(l)
}

func versionText(v uint64) string { return fmt.Sprintf("%d.%d.%d", v/1e6, v/1e3%1e3, v%1e3) }

// accelerators tells what machines can run with.
func (x *examination) accelerators(l *libvirt.Libvirt) {
	var all, kvm, either []addr.Address
	for _, m := range x.machines {
		all = append(all, m.at)
		switch m.Accelerator {
		case AcceleratorKVM:
			kvm = append(kvm, m.at)
		case AcceleratorAuto:
			either = append(either, m.at)
		}
	}
	if _, err := l.ConnectGetDomainCapabilities(nil, nil, nil, libvirt.OptString{"qemu"}, 0); err != nil {
		x.add("QEMU", providers.LevelFail, fmt.Sprintf("no machine can run: %v", err), "Install QEMU on the hypervisor, on Debian with `apt-get install qemu-system-x86`", all...)
		return
	}
	version, err := l.ConnectGetVersion()
	if err != nil {
		x.add("QEMU", providers.LevelFail, err.Error(), "", all...)
		return
	}
	x.add("QEMU", providers.LevelOK, "QEMU "+versionText(version), "", all...)
	if len(kvm)+len(either) == 0 {
		return
	}
	const advice = "Load its module there (modprobe kvm_intel or kvm_amd), and turn virtualization on in the firmware"
	_, err = l.ConnectGetDomainCapabilities(nil, nil, nil, libvirt.OptString{"kvm"}, 0)
	switch {
	case err == nil:
		x.add("KVM", providers.LevelOK, "is there", "", append(kvm, either...)...)
	case len(kvm) > 0:
		x.add("KVM", providers.LevelFail, fmt.Sprintf("machines with accelerator = \"kvm\" can't start: %v", err), advice+", or write accelerator = \"auto\"", kvm...)
	default:
		x.add("KVM", providers.LevelWarn, "there is none: machines run under emulation, ten times as slow", advice, either...)
	}
}

// storage tells whether the pools are there, and have room for what is to be uploaded.
func (x *examination) storage(l *libvirt.Libvirt) error {
	var need int64
	for path := range x.files {
		if info, err := os.Stat(x.p.fileOfUser(path)); err == nil {
			need += info.Size()
		}
	}
	for _, name := range sortedPools(x.pools) {
		of := x.pools[name]
		pool, err := l.StoragePoolLookupByName(name)
		switch {
		case err == nil:
		case !libvirtconn.NotFound(err):
			return err
		case name != x.p.pool:
			x.add("pool", providers.LevelFail, noPool(l, name, x.p.conn.URI()).Error(), "", of...)
			continue
		default:
			free, at := int64(-1), ""
			if x.p.conn.Local() {
				free, at = freeNear(x.p.poolPath)
			}
			x.room(name, fmt.Sprintf("%s will be made in %s", name, x.p.poolPath), at, free, need, of)
			continue
		}
		active, err := l.StoragePoolIsActive(pool)
		if err != nil {
			return err
		}
		if active == 0 && pool.UUID != poolUUID(name) {
			x.add("pool", providers.LevelFail, name+" does not run", fmt.Sprintf("Start it (virsh pool-start %s), and have it come up with the hypervisor (virsh pool-autostart %[1]s)", name), of...)
			continue
		}
		if active == 0 {
			x.add("pool", providers.LevelOK, name+" will be started", "", of...)
			continue
		}
		free, err := freeIn(l, pool, need)
		if err != nil {
			return err
		}
		x.room(name, name, "", free, need, of)
	}
	return nil
}

func (x *examination) room(pool, what, at string, free, need int64, of []addr.Address) {
	if pool != x.p.pool {
		need = 0 // what volumes there grow to can't be told
	}
	if at != "" {
		at = " in " + at
	}
	switch {
	case free < 0:
		x.add("pool", providers.LevelOK, what, "", of...)
	case free < need:
		x.add("pool", providers.LevelFail, fmt.Sprintf("%s: %s free%s, and the images take %s", what, spec.FormatSize(free), at, spec.FormatSize(need)), "Make room there, or name another pool", of...)
	default:
		x.add("pool", providers.LevelOK, fmt.Sprintf("%s: %s free%s", what, spec.FormatSize(free>>20<<20), at), "", of...)
	}
}

// freeNear is the room where a directory is, or will be.
func freeNear(dir string) (int64, string) {
	for ; ; dir = filepath.Dir(dir) {
		var s syscall.Statfs_t
		if err := syscall.Statfs(dir, &s); err == nil {
			return int64(s.Bavail) * s.Bsize, dir
		} else if dir == filepath.Dir(dir) {
			return -1, dir
		}
	}
}

func sortedPools(m map[string][]addr.Address) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// names tells of what is to be made and has a name that something else has.
func (x *examination) names(l *libvirt.Libvirt) error {
	for _, m := range x.machines {
		if m.made || m.Name == "" {
			continue
		}
		dom, err := l.DomainLookupByName(m.Name)
		if err != nil && !libvirtconn.NotFound(err) {
			return err
		}
		if err == nil && (m.id == "" || dom.UUID != uuidOf(addr.TypeMachine, m.id)) {
			x.add(providers.CheckName, providers.LevelFail, taken(addr.TypeMachine, m.Name, x.p.conn.URI()).Error(), "", m.at)
		}
	}
	for _, n := range x.networks {
		if n.made || n.Name == "" {
			continue
		}
		have, err := l.NetworkLookupByName(n.Name)
		if err != nil && !libvirtconn.NotFound(err) {
			return err
		}
		if err == nil && (n.id == "" || have.UUID != uuidOf(addr.TypeNetwork, n.id)) {
			x.add(providers.CheckName, providers.LevelFail, taken(addr.TypeNetwork, n.Name, x.p.conn.URI()).Error(), "", n.at)
		}
	}
	return nil
}

// subnets tells of networks that can't be made: their addresses are taken, or
// programs are missing that libvirtd runs for them.
func (x *examination) subnets(l *libvirt.Libvirt) error {
	type use struct {
		pre netip.Prefix
		who string
	}
	var used []use
	all, _, err := l.ConnectListAllNetworks(1, 0)
	if err != nil {
		return err
	}
	own := map[string]bool{} // interfaces of libvirt's networks
	for _, n := range all {
		d, err := describeNetwork(l, n)
		if libvirtconn.NotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if d.Bridge != nil && d.Bridge.Name != "" {
			own[d.Bridge.Name] = true
		}
		for _, ip := range d.IPs {
			if pre, ok := ip.prefix(); ok {
				used = append(used, use{pre.Masked(), "network " + n.Name})
			}
		}
	}
	if x.p.conn.Local() {
		ifaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range ifaces {
			addrs, err := i.Addrs()
			if err != nil || own[i.Name] {
				continue
			}
			for _, a := range addrs {
				if pre, err := netip.ParsePrefix(a.String()); err == nil && !pre.Addr().IsLinkLocalUnicast() {
					used = append(used, use{pre.Masked(), "interface " + i.Name})
				}
			}
		}
	}
	var dns, nat []addr.Address
	for _, n := range x.networks {
		if n.made || n.Mode == NetworkBridge {
			continue
		}
		if n.DNS || n.DHCP {
			dns = append(dns, n.at)
		}
		nat = append(nat, n.at)
		ours := "network " + n.Name // a create that was cut off has made it
		for _, s := range n.subnets() {
			pre, err := netip.ParsePrefix(s)
			if err != nil {
				continue
			}
			by := slices.IndexFunc(used, func(u use) bool { return u.who != ours && u.pre.Overlaps(pre) })
			if by < 0 {
				x.add(providers.CheckSubnet, providers.LevelOK, s+" is free", "", n.at)
				continue
			}
			x.add(providers.CheckSubnet, providers.LevelFail, fmt.Sprintf("%s is taken: %s has %s", s, used[by].who, used[by].pre), "Choose another subnet, or remove what has it", n.at)
		}
	}
	if x.p.conn.Local() {
		x.program("dnsmasq", "libvirt gives addresses and names by it", "dnsmasq-base", dns)
		x.program("iptables", "libvirt's networks need it", "iptables", nat)
	}
	return nil
}

// program tells whether this machine, the hypervisor, has a program of root's.
func (x *examination) program(name, why, pkg string, of []addr.Address) {
	if len(of) == 0 {
		return
	}
	_, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			_, err = os.Stat(filepath.Join(dir, name))
		}
	}
	if err != nil {
		x.add(name, providers.LevelFail, "there is no "+name+", and "+why, "Install it, on Debian with `apt-get install "+pkg+"`", of...)
		return
	}
	x.add(name, providers.LevelOK, "is there", "", of...)
}

// images tells of files of this machine that aren't there.
func (x *examination) images() {
	var paths []string
	for path := range x.files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		at := x.p.fileOfUser(path)
		info, err := os.Stat(at)
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New(at + " is no file")
		}
		if err == nil {
			var f *os.File
			if f, err = os.Open(at); err == nil {
				f.Close()
			}
		}
		f := providers.Finding{Where: providers.ThisMachine, Check: "image", Level: providers.LevelOK, Found: at, Objects: []addr.Address{x.files[path]}}
		if err != nil {
			f.Level, f.Found, f.Advice = providers.LevelFail, err.Error(), "Make or download it, or name another one; a relative path begins at the definition's directory"
		}
		x.found = append(x.found, f)
	}
}
