package libvirt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/providertest"
)

// str is a string's value.
func str(s string) cty.Value { return cty.StringVal(s) }

// configured is a provider as a run has it.
func configured(t *testing.T, uri string, set map[string]cty.Value) *Provider {
	t.Helper()
	p := New()
	config := map[string]cty.Value{"uri": str(uri)}
	for k, v := range set {
		config[k] = v
	}
	if err := p.Configure(providertest.Default(p.Schema().Config, config), providers.Env{DataDir: filepath.Join(t.TempDir(), ".clusterplan")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// object is a definition's value of a type.
func object(p *Provider, typ, name string, set map[string]cty.Value) cty.Value {
	attrs := map[string]cty.Value{"name": str(name), "provider": str(Name)}
	for k, v := range set {
		attrs[k] = v
	}
	return providertest.Default(p.Schema().Objects[typ], attrs)
}

func at(typ, name string) addr.Address { return addr.Address{Type: typ, Name: name} }

// world takes objects through plans and applies, as a run does.
type world struct {
	t    *testing.T
	p    *Provider
	said []string
	hear func(string) // each thing that is said, at once
}

func (w *world) plan(typ, name string, prior *providers.Object, config cty.Value) providers.PlanResponse {
	w.t.Helper()
	res, err := w.p.Plan(providers.PlanRequest{Addr: at(typ, name), Type: typ, Prior: prior, Config: config})
	if err != nil {
		w.t.Fatalf("plan %s %s: %v", typ, name, err)
	}
	return res
}

func (w *world) try(ctx context.Context, typ, name, id string, prior *providers.Object, config cty.Value) (*providers.Object, error) {
	w.t.Helper()
	plan := w.plan(typ, name, prior, config)
	if len(plan.Phases) != 1 {
		w.t.Fatalf("plan of %s %s has the phases %q (replace %v)", typ, name, plan.Phases, plan.Replace)
	}
	res, err := w.p.Apply(ctx, providers.ApplyRequest{Addr: at(typ, name), Type: typ, ID: id, Phase: plan.Phases[0], Prior: prior, Planned: plan.Planned,
		Progress: func(s string) {
			w.said = append(w.said, s)
			if w.hear != nil {
				w.hear(s)
			}
		}})
	return res.Object, err
}

func (w *world) apply(typ, name, id string, prior *providers.Object, config cty.Value) *providers.Object {
	w.t.Helper()
	o, err := w.try(w.t.Context(), typ, name, id, prior, config)
	if err != nil {
		w.t.Fatalf("apply %s %s: %v", typ, name, err)
	}
	return o
}

func (w *world) read(typ, name, id string, prior *providers.Object) *providers.Object {
	w.t.Helper()
	res, err := w.p.Read(w.t.Context(), providers.ReadRequest{Addr: at(typ, name), Type: typ, ID: id, Prior: prior})
	if err != nil {
		w.t.Fatalf("read %s %s: %v", typ, name, err)
	}
	return res.Object
}

// settled wants nothing to do.
func (w *world) settled(typ, name string, o *providers.Object, config cty.Value) {
	w.t.Helper()
	if o == nil {
		w.t.Fatalf("%s %s is not there", typ, name)
	}
	if plan := w.plan(typ, name, o, config); len(plan.Phases)+len(plan.Replace)+len(plan.Drift) > 0 {
		w.t.Fatalf("%s %s is not settled: %+v\nis %#v", typ, name, plan, o.Value)
	}
}

// connected keeps a connection open, so that the test driver keeps what it has.
func connected(t *testing.T, uri string) *libvirtconn.Conn {
	t.Helper()
	c, err := libvirtconn.New(libvirtconn.Config{URI: uri})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Do(t.Context(), "connect", func(l *golibvirt.Libvirt) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConformance has networks and volumes do what every provider must, by
// libvirt's test driver behind a real libvirtd; and says what is wrong with what
// can't be.
func TestConformance(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		const uri = "test:///default"
		connected(t, uri)
		make := func(t *testing.T) providers.Provider { return configured(t, uri, nil) }
		p := configured(t, uri, nil)
		network := map[string]cty.Value{"subnet": str("10.88.0.0/24"), "domain": str("lab.test")}
		changed := map[string]cty.Value{"subnet": str("10.88.0.0/24"), "domain": str("lab.test"), "autostart": cty.False}
		providertest.Run(t, providertest.Object{New: make, Addr: at(addr.TypeNetwork, "lab"), Type: addr.TypeNetwork, ID: "0123456789abcdef",
			Create: object(p, addr.TypeNetwork, "lab", network), Update: object(p, addr.TypeNetwork, "lab", changed)})

		w := &world{t: t, p: p}
		volume := object(p, addr.TypeVolume, "data", map[string]cty.Value{"size": str("64MiB")})
		made := w.apply(addr.TypeVolume, "data", "00000000000000d1", nil, volume)
		w.settled(addr.TypeVolume, "data", w.read(addr.TypeVolume, "data", "00000000000000d1", made), volume)
		found, err := p.Import(t.Context(), providers.ImportRequest{Addr: at(addr.TypeVolume, "data"), Type: addr.TypeVolume, ID: "00000000000000d1", Config: volume})
		if err != nil || found.ManagedBy == "" {
			t.Fatalf("import gives %+v, %v", found, err)
		}
		w.settled(addr.TypeVolume, "data", found.Object, volume)

		// A machine on the driver that runs nothing: attributes and metadata are real.
		machine := object(p, addr.TypeMachine, "m", map[string]cty.Value{
			"volumes": cty.ListVal([]cty.Value{str("data")}), "memory": str("1GiB"), "vcpus": cty.NumberIntVal(2)})
		m := w.apply(addr.TypeMachine, "m", "00000000000000a1", nil, machine)
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "00000000000000a1", m), machine)
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "00000000000000a1", nil), machine)

		// What others made is not touched; it is found by its name, and taken over.
		theirs := object(p, addr.TypeMachine, "test", map[string]cty.Value{"network": str("default"), "volumes": cty.ListVal([]cty.Value{str("data")}), "memory": str("8GiB"), "vcpus": cty.NumberIntVal(2)})
		if _, err := w.try(t.Context(), addr.TypeMachine, "test", "00000000000000a2", nil, theirs); err == nil || !strings.Contains(err.Error(), "already that is not this definition's") {
			t.Fatalf("a name that is taken gives %v", err)
		}
		found, err = p.Import(t.Context(), providers.ImportRequest{Addr: at(addr.TypeMachine, "test"), Type: addr.TypeMachine, ID: "test", Config: theirs})
		if err != nil || found.ManagedBy != "" || text(found.Object.Value, "memory") != "8GiB" {
			t.Fatalf("import gives %+v, %v", found, err)
		}
		w.settled(addr.TypeMachine, "test", found.Object, theirs)

		w.apply(addr.TypeMachine, "m", "00000000000000a1", m, cty.NilVal)
		w.apply(addr.TypeVolume, "data", "00000000000000d1", made, cty.NilVal)
		// One that went after a plan to grow it is not made again, empty, by that plan.
		if _, err := w.try(t.Context(), addr.TypeVolume, "data", "00000000000000d1", made, object(p, addr.TypeVolume, "data", map[string]cty.Value{"size": str("128MiB")})); err == nil || !strings.Contains(err.Error(), "a new one would be empty") {
			t.Fatalf("to grow a volume that is gone gives %v", err)
		}
		if o := w.read(addr.TypeVolume, "data", "00000000000000d1", made); o != nil {
			t.Fatalf("what was to grow a volume has made %+v", o)
		}
		if o := w.read(addr.TypeMachine, "m", "00000000000000a1", nil); o != nil {
			t.Fatalf("after its delete there is %+v", o)
		}
		if _, err := w.try(t.Context(), addr.TypeVolume, "x", "00000000000000d2", nil, object(p, addr.TypeVolume, "x", map[string]cty.Value{"size": str("1GiB"), "pool": str("fast")})); err == nil || !strings.Contains(err.Error(), `no storage pool "fast" (it has default-pool)`) {
			t.Fatalf("a pool that isn't there gives %v", err)
		}
	})
}

// TestUnreachable: who is not there, and who may not be talked to.
func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	p := configured(t, "qemu:///system?socket="+filepath.Join(dir, "none"), nil)
	_, err := p.Read(t.Context(), providers.ReadRequest{Type: addr.TypeNetwork, ID: "x"})
	if !errors.Is(err, providers.ErrUnreachable) || !strings.Contains(err.Error(), "no libvirtd runs on this machine") {
		t.Fatalf("without libvirtd: %v", err)
	}
	for uri, want := range map[string]string{
		"system":                          "no URI",
		"qemu+rsh://h/system":             "+rsh is not known",
		"qemu+ssh:///system":              "a host goes with",
		"qemu+tls://h/system?no_verify=1": "would trust any host",
		"qemu+ssh://u:sesame@h/system":    "password",
		"qemu+ssh://u:sesame@h:x/system":  "no URI",
	} {
		p := New()
		err := p.Configure(providertest.Default(p.Schema().Config, map[string]cty.Value{"uri": str(uri)}), providers.Env{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("uri %s: %v, want %q", uri, err, want)
		}
	}
}

// TestNotOurs: what others have in a pool, and a machine that came up long ago,
// stay where a change of ours fails, or what is ours goes.
func TestNotOurs(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		const uri = "test:///default"
		c := connected(t, uri)
		p := configured(t, uri, map[string]cty.Value{"pool": str("default-pool")})
		w := &world{t: t, p: p}
		theirs := []string{"image-debian.qcow2", "data.00000000000000d1.volume.qcow2.bak", "n.00000000000000d1.disk.before"}
		var left []string
		in := func(f func(l *golibvirt.Libvirt, pool golibvirt.StoragePool) error) {
			t.Helper()
			if err := c.Do(t.Context(), "look", func(l *golibvirt.Libvirt) error {
				pool, err := l.StoragePoolLookupByName("default-pool")
				if err != nil {
					return err
				}
				return f(l, pool)
			}); err != nil {
				t.Fatal(err)
			}
		}
		in(func(l *golibvirt.Libvirt, pool golibvirt.StoragePool) error {
			for _, name := range theirs {
				if _, err := createVolume(l, pool, xmlVolume{Name: name, Capacity: &xmlBytes{Value: 1 << 20}}); err != nil {
					return err
				}
			}
			return nil
		})
		made := w.apply(addr.TypeVolume, "data", "00000000000000d1", nil, object(p, addr.TypeVolume, "data", map[string]cty.Value{"size": str("64MiB")}))

		// A machine that was up is not up at the moment: the definition changes again.
		machine := func(memory string) cty.Value {
			return object(p, addr.TypeMachine, "m", map[string]cty.Value{"volumes": cty.ListVal([]cty.Value{str("data")}), "memory": str(memory)})
		}
		m := w.apply(addr.TypeMachine, "m", "00000000000000a1", nil, machine("1GiB"))
		in(func(l *golibvirt.Libvirt, pool golibvirt.StoragePool) error {
			if _, err := createVolume(l, pool, xmlVolume{Name: fileOf("m", "00000000000000a1", diskFile), Capacity: &xmlBytes{Value: 1 << 20}}); err != nil {
				return err
			}
			f, err := p.machine(t.Context(), "00000000000000a1")
			if err != nil {
				return err
			}
			owner := *f.owner
			owner.Up = false
			text, err := ownerText(owner)
			if err != nil {
				return err
			}
			return l.DomainSetMetadata(f.dom, 2, golibvirt.OptString{text}, golibvirt.OptString{"clusterplan"}, golibvirt.OptString{ownerURI}, golibvirt.DomainAffectConfig)
		})
		m = w.read(addr.TypeMachine, "m", "00000000000000a1", m)
		in(func(l *golibvirt.Libvirt, _ golibvirt.StoragePool) error { // its host has gone down, and saved it
			dom, err := l.DomainLookupByName("m")
			if err == nil {
				err = l.DomainManagedSave(dom, 0)
			}
			return err
		})
		m = w.apply(addr.TypeMachine, "m", "00000000000000a1", m, machine("2GiB"))
		in(func(l *golibvirt.Libvirt, _ golibvirt.StoragePool) error {
			dom, err := l.DomainLookupByName("m")
			if err != nil {
				return err
			}
			if saved, err := libvirtconn.Saved(l, dom); err != nil || saved {
				t.Errorf("the machine was started from memory that was saved: %v", err)
			}
			return nil
		})
		w.settled(addr.TypeMachine, "m", m, machine("2GiB"))
		if o, err := p.remains(t.Context(), "00000000000000a1", cty.NilVal); err != nil || o == nil {
			t.Errorf("an update in place has removed the machine's disk (%v)", err)
		}

		w.apply(addr.TypeMachine, "m", "00000000000000a1", m, cty.NilVal)
		// In a pool that does not run nothing can be seen: it is not gone.
		in(func(l *golibvirt.Libvirt, pool golibvirt.StoragePool) error { return l.StoragePoolDestroy(pool) })
		for _, typ := range []string{addr.TypeVolume, addr.TypeMachine} {
			if res, err := p.Read(t.Context(), providers.ReadRequest{Type: typ, ID: "00000000000000d1"}); err == nil || !strings.Contains(err.Error(), "pool-start default-pool") {
				t.Errorf("a %s in a pool that does not run reads as %+v, %v", typ, res.Object, err)
			}
		}
		if _, err := w.try(t.Context(), addr.TypeVolume, "data", "00000000000000d1", made, cty.NilVal); err == nil || !strings.Contains(err.Error(), "pool-start default-pool") {
			t.Errorf("its delete says %v", err)
		}
		in(func(l *golibvirt.Libvirt, pool golibvirt.StoragePool) error { return l.StoragePoolCreate(pool, 0) })
		w.apply(addr.TypeVolume, "data", "00000000000000d1", made, cty.NilVal)
		in(func(l *golibvirt.Libvirt, pool golibvirt.StoragePool) error {
			vols, _, err := l.StoragePoolListAllVolumes(pool, 1, 0)
			left = nil
			for _, v := range vols {
				left = append(left, v.Name)
			}
			return err
		})
		slices.Sort(left)
		slices.Sort(theirs)
		if !slices.Equal(left, theirs) {
			t.Errorf("there were %q of others, there are %q", theirs, left)
		}
	})
}

// TestRebootsAreTold: a machine that runs with less than it would start with
// next reboots by an update, and the plan says so. One that was made elsewhere is
// read with the accelerator that it has, and keeps it where any will do.
func TestRebootsAreTold(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		const uri = "test:///default"
		c := connected(t, uri)
		p := configured(t, uri, map[string]cty.Value{"pool": str("default-pool")})
		w := &world{t: t, p: p}
		v := w.apply(addr.TypeVolume, "data", "00000000000000d1", nil, object(p, addr.TypeVolume, "data", map[string]cty.Value{"size": str("64MiB")}))
		machine := func(memory string, vcpus int64) cty.Value {
			return object(p, addr.TypeMachine, "m", map[string]cty.Value{"volumes": cty.ListVal([]cty.Value{str("data")}), "memory": str(memory), "vcpus": cty.NumberIntVal(vcpus)})
		}
		m := w.apply(addr.TypeMachine, "m", "00000000000000a1", nil, machine("1GiB", 1))
		f, err := p.machine(t.Context(), "00000000000000a1")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), "set memory", func(l *golibvirt.Libvirt) error { return resize(l, f, 2<<30, 1) }); err != nil {
			t.Fatal(err)
		}
		m = w.read(addr.TypeMachine, "m", "00000000000000a1", m)
		if got := text(m.Value, "memory"); got != "1GiB" {
			t.Errorf("it runs with 1GiB, and is read with %s", got)
		}
		m = w.apply(addr.TypeMachine, "m", "00000000000000a1", m, machine("2GiB", 1))
		w.settled(addr.TypeMachine, "m", w.read(addr.TypeMachine, "m", "00000000000000a1", m), machine("2GiB", 1))
		w.apply(addr.TypeMachine, "m", "00000000000000a1", m, cty.NilVal)
		w.apply(addr.TypeVolume, "data", "00000000000000d1", v, cty.NilVal)

		q := configured(t, lab.URI, nil)
		const id = "01234567-89ab-4def-8123-456789abcdef"
		define(t, lab, `<domain type="qemu"><name>old</name><uuid>`+id+`</uuid><memory unit="MiB">64</memory><os><type>hvm</type></os></domain>`)
		old := object(q, addr.TypeMachine, "old", map[string]cty.Value{"memory": str("64MiB"), "accelerator": str(AcceleratorKVM)})
		found, err := q.Import(t.Context(), providers.ImportRequest{Addr: at(addr.TypeMachine, "old"), Type: addr.TypeMachine, ID: "old", Config: old})
		if err != nil || text(found.Object.Value, "accelerator") != AcceleratorTCG {
			t.Errorf("a machine under emulation is read as %+v, %v", found.Object, err)
		}
		f, err = q.machine(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.conn.Do(t.Context(), "look", func(l *golibvirt.Libvirt) error {
			got, err := (&making{p: q, f: f, want: machineSpec{Accelerator: AcceleratorAuto}}).accelerator(l)
			if err == nil && got != AcceleratorTCG {
				t.Errorf("a machine under emulation is to run with %q", got)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		lab.Virsh("undefine", "old")
	})
}

func define(t *testing.T, lab *libvirtlab.Lab, text string) {
	t.Helper()
	file := filepath.Join(lab.Dir, "domain.xml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lab.Virsh("define", file)
}
