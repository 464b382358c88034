package libvirt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// What Read finds that is not as it should be; an update mends it.
const (
	healthOff     = providers.HealthMachineOff
	healthPaused  = "machine is paused"
	healthNotUp   = "machine has not come up yet"
	healthAddress = "address is not the machine's any more"
	healthGone    = "machine is undefined, its disk is there"
)

// sealed is a cloud_init block with digests in place of the texts.
func sealed(v cty.Value) cty.Value {
	attrs := v.AsValueMap()
	for _, name := range secretTexts {
		if s := text(v, name); s != "" {
			attrs[name] = cty.StringVal(textDigest(s))
		}
	}
	return cty.ObjectVal(attrs)
}

// secretTexts are attributes of cloud_init that people put passwords into.
var secretTexts = []string{"user_data", "network_config"}

func textDigest(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

// unsealed puts the texts of known back where they are what the digests say. Where
// the state has only a digest of its own, the two can't be told apart: that stays, and
// stands for what the machine was made with. No digest is ever a text for a machine.
func unsealed(v, known cty.Value) cty.Value {
	if known == cty.NilVal || known.IsNull() || !known.IsKnown() {
		return v
	}
	attrs := v.AsValueMap()
	for _, name := range secretTexts {
		s, has := text(known, name), text(v, name)
		if _, is := spec.IsDigest(s); s != "" && has != "" && (is || textDigest(s) == has) {
			attrs[name] = cty.StringVal(s)
		}
	}
	return cty.ObjectVal(attrs)
}

// readMachine says what is there. prior has the texts that metadata keep only
// digests of; config has what can't be seen of a machine that was made elsewhere.
func (p *Provider) readMachine(ctx context.Context, id string, prior, config cty.Value) (*providers.Object, *found, error) {
	if prior == cty.NilVal {
		prior = config
	}
	if prior != cty.NilVal {
		prior, _ = prior.UnmarkDeep()
	}
	f, err := p.machine(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if f == nil {
		o, err := p.remains(ctx, id, prior)
		return o, nil, err
	}
	shape := machineSchema().WithIdentity()
	v := schema.BlockDefault(blockOf(shape))
	switch {
	case f.owner != nil:
		if v, err = schema.FromJSON([]byte(f.owner.Value), schema.Type(shape)); err != nil {
			return nil, nil, fmt.Errorf("read what machine %s says of itself: %w", f.x.Name, err)
		}
	case prior != cty.NilVal && prior.IsWhollyKnown():
		v = prior
	}
	v, _ = v.UnmarkDeep()
	attrs := v.AsValueMap()
	if prior != cty.NilVal {
		attrs["cloud_init"] = unsealed(attrs["cloud_init"], prior.GetAttr("cloud_init"))
	}
	attrs["name"], attrs["provider"] = cty.StringVal(f.x.Name), cty.StringVal(Name)
	attrs["memory"] = cty.StringVal(sizeText(f.x.Memory.bytes(), text(v, "memory")))
	attrs["vcpus"] = cty.NumberIntVal(int64(f.x.VCPU))
	if a := f.x.accelerator(); f.owner == nil && a != "" && text(v, "accelerator") != AcceleratorAuto { // nobody has noted it
		attrs["accelerator"] = cty.StringVal(a)
	}
	attrs["uuid"] = cty.StringVal(uuidText(f.dom.UUID))
	attrs["console"], attrs["ssh_host_key"] = cty.NullVal(cty.String), cty.NullVal(cty.String)
	if f.owner != nil && f.owner.Key != "" {
		attrs["ssh_host_key"] = cty.StringVal(f.owner.Key)
	}
	for _, s := range f.x.Devices.Serials {
		if s.Log != nil {
			attrs["console"] = cty.StringVal(s.Log.File)
		}
	}
	o := &providers.Object{ID: id}
	if f.owner != nil && foreignID(id) {
		o.ID = f.owner.ID
	}
	var want machineSpec
	if err := schema.DecodeKnown(v, &want); err != nil {
		return nil, nil, err
	}
	nics := f.nics()
	wired := want.interfaces()
	if !slices.EqualFunc(wired, nics, func(w interfaceSpec, n nic) bool { return w.Network == n.network && (w.MAC == "" || w.MAC == n.mac) }) {
		attrs["network"], attrs["interface"] = asWired(nics, shapeOf("interface"))
		wired = nil
	}
	disks, err := p.lookAtDisks(ctx, f, want)
	if err != nil {
		return nil, nil, err
	}
	if want.ImageDigest != "" && disks.image != "" {
		attrs["image_digest"] = cty.StringVal(disks.image)
	}
	err = p.conn.Do(ctx, "read machine "+f.x.Name, func(l *libvirt.Libvirt) error {
		o.Health = nil
		auto, err := l.DomainGetAutostart(f.dom)
		if err != nil {
			return err
		}
		attrs["autostart"] = cty.BoolVal(auto == 1)
		state, _, err := l.DomainGetState(f.dom, 0)
		if err != nil {
			return err
		}
		switch libvirt.DomainState(state) {
		case libvirt.DomainRunning, libvirt.DomainBlocked:
			if f.owner != nil && !f.owner.Up {
				o.Health = append(o.Health, healthNotUp)
			}
			// What it has counts, not what it would start with next: to get that it
			// reboots, and the plan is to say so.
			now, err := l.DomainGetXMLDesc(f.dom, 0)
			var x xmlMachine
			if err = errors.Join(err, fromXML(now, &x)); err != nil {
				return err
			}
			attrs["memory"] = cty.StringVal(sizeText(x.Memory.bytes(), text(v, "memory")))
			attrs["vcpus"] = cty.NumberIntVal(int64(x.VCPU))
		case libvirt.DomainPaused, libvirt.DomainPmsuspended:
			o.Health = append(o.Health, healthPaused)
		default:
			o.Health = append(o.Health, healthOff)
		}
		var macs, addresses, sixes []cty.Value
		for i, n := range nics {
			address, six, err := leaseOf(l, n)
			if err != nil {
				return err
			}
			given := ""
			if i < len(wired) {
				given = wired[i].Address
			}
			if address == "" && given == "" && f.owner != nil && f.owner.Up && i < len(wired) && hadAddress(prior, i) {
				o.Health = append(o.Health, healthAddress)
			}
			if address == "" {
				address = given
			}
			macs, addresses = append(macs, cty.StringVal(n.mac)), append(addresses, cty.StringVal(address))
			sixes = append(sixes, cty.StringVal(six))
		}
		attrs["macs"], attrs["addresses"] = listOf(macs), listOf(addresses)
		attrs["addresses6"], attrs["address6"] = listOf(sixes), cty.NullVal(cty.String)
		if len(sixes) > 0 && sixes[0].AsString() != "" {
			attrs["address6"] = sixes[0]
		}
		attrs["address"] = cty.NullVal(cty.String)
		if len(addresses) > 0 && addresses[0].AsString() != "" {
			attrs["address"] = addresses[0]
		}
		return nil
	})
	o.Value = cty.ObjectVal(attrs)
	o.Health = append(o.Health, disks.health...)
	return o, f, err
}

// hadAddress tells whether the i-th interface had one.
func hadAddress(prior cty.Value, i int) bool {
	if prior == cty.NilVal || !prior.GetAttr("addresses").IsWhollyKnown() {
		return false
	}
	had := prior.GetAttr("addresses").AsValueSlice()
	return i < len(had) && had[i].AsString() != ""
}

// remains is a machine of which only files are there: a create that was cut off,
// or one that somebody has undefined. nil: nothing is.
func (p *Provider) remains(ctx context.Context, id string, prior cty.Value) (*providers.Object, error) {
	if foreignID(id) {
		return nil, nil
	}
	var name string
	disk, h := false, p.homeOf(nil, prior)
	err := p.conn.Do(ctx, "look for the disks of machine "+id, func(l *libvirt.Libvirt) error {
		files, err := filesOf(l, id, h)
		if err == nil && len(files) > 0 {
			name, _, _ = strings.Cut(files[0].Name, "."+id+".")
			vol, _, err := ownDisk(l, id, h)
			disk = vol != nil
			return err
		}
		if err == nil {
			err = asleep(l, p.pool)
		}
		return err
	})
	if err != nil || name == "" {
		return nil, err
	}
	v := prior
	if v == cty.NilVal || !v.IsWhollyKnown() {
		attrs := schema.BlockDefault(blockOf(machineSchema().WithIdentity())).AsValueMap()
		attrs["name"], attrs["provider"] = cty.StringVal(name), cty.StringVal(Name)
		v = cty.ObjectVal(attrs)
	}
	o := &providers.Object{ID: id, Value: v, Health: []string{healthGone}}
	// One that was made once and has lost its disk as well would begin anew, with all
	// that its node has on it: the plan is to say so.
	if made := v.GetAttr("uuid"); !disk && text(v, "image") != "" && made.IsKnown() && !made.IsNull() {
		o.Health = []string{healthDiskGone}
	}
	return o, nil
}

func listOf(v []cty.Value) cty.Value {
	if len(v) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	return cty.ListVal(v)
}

func shapeOf(block string) cty.Type {
	for _, b := range machineSchema().Blocks {
		if b.Name == block {
			return schema.BlockType(b)
		}
	}
	panic("no block " + block) // constants of this file
}

// asWired is what a definition would say of the interfaces that there are.
func asWired(nics []nic, list cty.Type) (network, interfaces cty.Value) {
	network, interfaces = cty.NullVal(cty.String), cty.ListValEmpty(list.ElementType())
	if len(nics) == 1 && nics[0].network != "" {
		return cty.StringVal(nics[0].network), interfaces
	}
	var all []cty.Value
	for _, n := range nics {
		all = append(all, cty.ObjectVal(map[string]cty.Value{"network": cty.StringVal(n.network), "address": cty.NullVal(cty.String), "mac": cty.NullVal(cty.String)}))
	}
	if len(all) > 0 {
		interfaces = cty.ListVal(all)
	}
	return network, interfaces
}
