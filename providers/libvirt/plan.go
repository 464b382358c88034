package libvirt

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// What the definition says of each type, by the names of its attributes.
type (
	networkSpec struct {
		Name      string `json:"name"`
		Mode      string `json:"mode"`
		Subnet    string `json:"subnet"`
		Subnet6   string `json:"subnet6"`
		Bridge    string `json:"bridge"`
		Domain    string `json:"domain"`
		DNS       bool   `json:"dns"`
		DHCP      bool   `json:"dhcp"`
		Autostart bool   `json:"autostart"`
	}
	volumeSpec struct {
		Name        string `json:"name"`
		Pool        string `json:"pool"`
		Size        string `json:"size"`
		Image       string `json:"image"`
		ImageDigest string `json:"image_digest"`
	}
	machineSpec struct {
		Name        string          `json:"name"`
		Memory      string          `json:"memory"`
		VCPUs       int             `json:"vcpus"`
		Image       string          `json:"image"`
		ImageDigest string          `json:"image_digest"`
		DiskSize    string          `json:"disk_size"`
		Kernel      string          `json:"kernel"`
		Initrd      string          `json:"initrd"`
		Cmdline     string          `json:"cmdline"`
		Firmware    string          `json:"firmware"`
		Volumes     []string        `json:"volumes"`
		Network     string          `json:"network"`
		Autostart   bool            `json:"autostart"`
		Accelerator string          `json:"accelerator"`
		WaitFor     string          `json:"wait_for"`
		WaitTimeout spec.Duration   `json:"wait_timeout"`
		Interfaces  []interfaceSpec `json:"interface"`
		CloudInit   cloudInit       `json:"cloud_init"`
	}
	interfaceSpec struct {
		Network string `json:"network"`
		Address string `json:"address"`
		MAC     string `json:"mac"`
	}
	cloudInit struct {
		Enabled       bool     `json:"enabled"`
		User          string   `json:"user"`
		Keys          []string `json:"ssh_authorized_keys"`
		UserData      string   `json:"user_data"`
		NetworkConfig string   `json:"network_config"`
	}
)

// interfaces are the machine's, however they are written.
func (m *machineSpec) interfaces() []interfaceSpec {
	if m.Network != "" {
		return []interfaceSpec{{Network: m.Network}}
	}
	return m.Interfaces
}

// Plan works out what an apply would leave. Pure.
func (p *Provider) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	shape, ok := p.Schema().Objects[req.Type]
	if !ok {
		return providers.PlanResponse{}, fmt.Errorf("provider libvirt has no objects of type %s", req.Type)
	}
	if req.Config == cty.NilVal || req.Config.IsNull() {
		return providers.PlanResponse{Planned: cty.NilVal, Phases: []string{providers.PhaseDelete}}, nil
	}
	config, marks := req.Config.UnmarkDeepWithPaths()
	if err := check(req.Type, config); err != nil {
		return providers.PlanResponse{}, err
	}
	prior := priorValue(req.Prior)
	var res providers.PlanResponse
	var differs bool
	if prior != cty.NilVal {
		var err error
		if differs, res.Replace, err = changes(req.Type, shape, prior, config); err != nil {
			return res, err
		}
	}
	attrs := config.AsValueMap()
	if prior != cty.NilVal && len(res.Replace) == 0 && slices.Contains(req.Prior.Health, healthDiskGone) {
		res.Replace = []cty.Path{cty.GetAttrPath("image")}
	}
	stays := prior != cty.NilVal && len(res.Replace) == 0
	for _, a := range shape.Attributes {
		switch {
		case !a.Computed:
		case stays && prior.Type().HasAttribute(a.Name):
			attrs[a.Name] = prior.GetAttr(a.Name)
		default:
			attrs[a.Name] = cty.UnknownVal(schema.AttributeType(a.Type))
		}
	}
	if stays && slices.Contains(req.Prior.Health, healthGone) {
		attrs["ssh_host_key"] = cty.UnknownVal(cty.String) // it gets a new seed
	}
	if !stays {
		foresee(req.Type, config, attrs)
	}
	res.Planned = cty.ObjectVal(attrs).MarkWithPaths(marks)
	switch {
	case prior == cty.NilVal:
		res.Phases = []string{providers.PhaseCreate}
	case len(res.Replace) > 0:
		res.Impact = spec.ImpactReplace
	case differs || len(toMend(req.Prior.Health)) > 0:
		res.Phases = []string{providers.PhaseUpdate}
		if req.Type == addr.TypeMachine && (slices.Contains(req.Prior.Health, healthOff) || slices.Contains(req.Prior.Health, healthGone) || disksDiffer(req.Prior.Health)) {
			res.Impact = spec.ImpactReboot // its node comes back after it
		}
	}
	if req.Prior != nil {
		res.Drift = req.Prior.Health
	}
	return res, nil
}

// changes are the attributes that differ: whether one does, and those that make
// the object anew. What is not known yet is taken to stay as it is.
func changes(typ string, shape spec.Schema, prior, config cty.Value) (differs bool, replace []cty.Path, err error) {
	for _, a := range shape.Attributes {
		if a.Computed || same(prior, config, a.Name) {
			continue
		}
		differs = true
		if a.Impact == spec.ImpactReplace {
			replace = append(replace, cty.GetAttrPath(a.Name))
		}
	}
	for _, b := range shape.Blocks { // all of theirs make it anew
		if !same(prior, config, b.Name) {
			differs, replace = true, append(replace, cty.GetAttrPath(b.Name))
		}
	}
	if typ == addr.TypeVolume && len(replace) == 0 && !same(prior, config, "size") {
		was, now := sizeOf(text(prior, "size")), sizeOf(text(config, "size"))
		if text(config, "size") != "" && now < was {
			return differs, replace, cty.GetAttrPath("size").NewErrorf("size = %q is less than the %s that the volume has: what lies in the rest would be lost; a volume can only grow: write size = %[2]q, also where somebody else has had it grow", text(config, "size"), text(prior, "size"))
		}
	}
	return differs, replace, nil
}

func same(prior, config cty.Value, name string) bool {
	if !prior.Type().HasAttribute(name) {
		return false
	}
	was, now := prior.GetAttr(name), config.GetAttr(name)
	was, _ = was.UnmarkDeep()
	return !now.IsWhollyKnown() || was.RawEquals(now)
}

// foresee fills in what a create is sure to give.
func foresee(typ string, config cty.Value, attrs map[string]cty.Value) {
	switch typ {
	case addr.TypeNetwork:
		var n networkSpec
		if schema.DecodeKnown(config, &n) != nil || !config.GetAttr("subnet").IsKnown() || !config.GetAttr("subnet6").IsKnown() || !config.GetAttr("bridge").IsKnown() {
			return
		}
		if n.Mode == NetworkBridge {
			attrs["gateway"], attrs["gateway6"], attrs["interface"] = cty.NullVal(cty.String), cty.NullVal(cty.String), cty.StringVal(n.Bridge)
		} else if pre, err := subnet(n.Subnet); err == nil {
			attrs["gateway"], attrs["gateway6"] = cty.StringVal(gatewayOf(pre).String()), cty.NullVal(cty.String)
			if pre, err := netip.ParsePrefix(n.Subnet6); err == nil {
				attrs["gateway6"] = cty.StringVal(gatewayOf(pre).String())
			}
		}
	case addr.TypeMachine:
		var m machineSpec
		if schema.DecodeKnown(config, &m) != nil || !config.GetAttr("interface").IsWhollyKnown() || !config.GetAttr("network").IsWhollyKnown() {
			return
		}
		nics := m.interfaces()
		if len(nics) == 0 {
			attrs["address"], attrs["addresses"], attrs["macs"] = cty.NullVal(cty.String), cty.ListValEmpty(cty.String), cty.ListValEmpty(cty.String)
			attrs["address6"], attrs["addresses6"] = cty.NullVal(cty.String), cty.ListValEmpty(cty.String)
			return
		}
		if nics[0].Address != "" {
			attrs["address"] = cty.StringVal(nics[0].Address)
		}
	}
}

var nameShape = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$`)

// check refuses what no hypervisor could make, as far as it is known.
func check(typ string, config cty.Value) error {
	if name := text(config, "name"); name != "" && !nameShape.MatchString(name) {
		return cty.GetAttrPath("name").NewErrorf("%q can't be a name here: letters, digits, - and _ only, at most 63, as n1; give it one with name", name)
	}
	known := func(names ...string) bool {
		for _, name := range names {
			if !config.GetAttr(name).IsWhollyKnown() {
				return false
			}
		}
		return true
	}
	switch typ {
	case addr.TypeNetwork:
		var n networkSpec
		if err := schema.DecodeKnown(config, &n); err != nil {
			return err
		}
		if !known("mode", "subnet", "subnet6", "bridge") {
			return nil
		}
		return n.check()
	case addr.TypeVolume:
		var v volumeSpec
		if err := schema.DecodeKnown(config, &v); err != nil {
			return err
		}
		switch {
		case known("size", "image") && v.Size == "" && v.Image == "":
			return cty.GetAttrPath("size").NewErrorf("a volume needs a size, as size = \"10GiB\", or an image")
		case v.ImageDigest != "" && known("image") && v.Image == "":
			return cty.GetAttrPath("image_digest").NewErrorf("image_digest is of image, and there is none")
		}
		return checkDigest(v.ImageDigest)
	case addr.TypeMachine:
		var m machineSpec
		if err := schema.DecodeKnown(config, &m); err != nil {
			return err
		}
		if !known("image", "kernel", "initrd", "cmdline", "volumes", "network", "interface", "disk_size", "image_digest") {
			return nil
		}
		return m.check()
	}
	return nil
}

func (n *networkSpec) check() error {
	if n.Mode == NetworkBridge {
		switch {
		case n.Bridge == "":
			return cty.GetAttrPath("bridge").NewErrorf("mode = \"bridge\" needs the hypervisor's bridge, as bridge = \"br0\"")
		case n.Subnet != "" || n.Subnet6 != "" || n.Domain != "":
			return cty.GetAttrPath("subnet").NewErrorf("subnet, subnet6 and domain are for modes nat and isolated; a bridge's addresses and names are given by the network behind it")
		}
		return nil
	}
	if n.Bridge != "" {
		return cty.GetAttrPath("bridge").NewErrorf("bridge is for mode = \"bridge\"; this network gets a bridge of its own")
	}
	if _, err := subnet(n.Subnet); err != nil {
		return err
	}
	return checkSubnet6(n.Subnet6)
}

// subnet reads a network's addresses.
func subnet(s string) (netip.Prefix, error) {
	at := cty.GetAttrPath("subnet")
	pre, err := netip.ParsePrefix(s)
	switch {
	case s == "":
		return pre, at.NewErrorf("modes nat and isolated need a subnet, as subnet = \"10.88.0.0/24\"")
	case err != nil || !pre.Addr().Is4():
		return pre, at.NewErrorf("%q is no IPv4 subnet; write for example 10.88.0.0/24", s)
	case pre != pre.Masked():
		return pre, at.NewErrorf("%q has bits below its prefix; write %s", s, pre.Masked())
	case pre.Bits() < 8 || pre.Bits() > 29:
		return pre, at.NewErrorf("%q: a network of machines has a prefix from /8 to /29", s)
	}
	return pre, nil
}

func (m *machineSpec) check() error {
	attr := func(name, format string, args ...any) error {
		return cty.GetAttrPath(name).NewErrorf(format, args...)
	}
	switch {
	case m.Image != "" && m.Kernel != "":
		return attr("kernel", "a machine boots from image or from kernel; remove one of the two")
	case m.Image == "" && m.Kernel == "" && len(m.Volumes) == 0:
		return attr("image", "a machine needs something to boot from: image, kernel (with initrd and cmdline), or volumes of which the first one boots")
	case m.Kernel == "" && (m.Initrd != "" || m.Cmdline != ""):
		return attr("initrd", "initrd and cmdline go with kernel, and there is none")
	case m.Image == "" && (m.ImageDigest != "" || m.DiskSize != ""):
		return attr("image", "image_digest and disk_size go with image, and there is none")
	case m.Network != "" && len(m.Interfaces) > 0:
		return attr("network", "network is short for a single interface block; with interface blocks, put this network into one of them too")
	case m.VCPUs < 1:
		return attr("vcpus", "a machine has at least one processor")
	case sizeOf(m.Memory) < 16<<20:
		return attr("memory", "memory = %q is too little to boot; give it at least 64MiB", m.Memory)
	}
	for i, nic := range m.Interfaces {
		at := cty.GetAttrPath("interface").IndexInt(i)
		if nic.Address != "" {
			if a, err := netip.ParseAddr(nic.Address); err != nil || !a.Is4() {
				return at.GetAttr("address").NewErrorf("%q is no IPv4 address", nic.Address)
			}
		}
		if nic.MAC != "" {
			if hw, err := net.ParseMAC(nic.MAC); err != nil || len(hw) != 6 || hw[0]&1 != 0 || nic.MAC != hw.String() {
				return at.GetAttr("mac").NewErrorf("%q is no address of an interface; write it as 52:54:00:12:34:56", nic.MAC)
			}
		}
	}
	return checkDigest(m.ImageDigest)
}

var digestShape = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func checkDigest(d string) error {
	if d != "" && !digestShape.MatchString(d) {
		return cty.GetAttrPath("image_digest").NewErrorf("%q is no digest; write sha256: and the 64 digits that sha256sum prints", d)
	}
	return nil
}

// sizeOf is a size in bytes; what the language has let through can be read.
func sizeOf(s string) int64 {
	if s == "" {
		return 0
	}
	n, err := spec.ParseSize(s)
	if err != nil {
		return 0
	}
	return n
}

// sizeText is a size as the definition has it, where that means the same.
func sizeText(n int64, as string) string {
	if as != "" && sizeOf(as) == n {
		return as
	}
	return strings.TrimSpace(spec.FormatSize(n))
}
