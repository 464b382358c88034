// Package libvirt puts machines, their networks and their volumes on a
// hypervisor that runs libvirtd, by any of libvirt's URIs.
//
// Nothing has to be there but libvirtd: a storage pool of its own is made with
// the first volume and goes with the last. What it makes is known by its
// object's id: the UUID of a machine and of a network follows from it, and it
// stands in the names of volumes. So what an apply that was cut off has left is
// found, finished or removed, and what others made is never touched.
//
// Start reading at Provider; then plan.go (what a change does), machine.go,
// network.go and volume.go (one type each), boot.go (waiting for a machine),
// pool.go and image.go (where disks come from), lease.go (addresses).
//
// Each of its steps looks at what is there and does what is missing, so that it
// can be repeated: after a crash, and after a libvirtd that was restarted.
package libvirt

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/libvirtconn"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Name is the provider's name in definitions.
const Name = "libvirt"

// Defaults of the provider's block.
const (
	DefaultURI      = "qemu:///system"
	DefaultPool     = "clusterplan"
	DefaultPoolPath = "/var/lib/libvirt/clusterplan"
)

// Provider holds networks, volumes and machines of one libvirtd.
type Provider struct {
	conn     *libvirtconn.Conn
	pool     string
	poolPath string
	keys     []string // public keys of the user
	base     string   // paths of images are relative to it
	run      string   // tells its marks from those of other runs
	log      *slog.Logger
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	silence  time.Duration // after which a guest under KVM counts as dead
	stall    time.Duration // a fifth of how long an upload of another run may pause

	marked, looked func() // a test's: when an image that goes is marked, and was looked at once more

	storage  sync.Mutex // pool, cache and their end: one at a time
	leases   sync.Mutex // addresses are chosen one at a time
	mu       sync.Mutex
	digests  map[string]imageFile
	using    map[string]int // names of images that a volume or machine is about to need
	kvmFails bool           // a guest of this run didn't come up under KVM
}

// New is the provider; it needs Configure before use.
func New() *Provider { return &Provider{silence: silence, stall: time.Second} }

// Schema is the provider's shapes.
func (p *Provider) Schema() providers.Schema {
	return providers.Schema{
		Config: spec.Schema{
			Name: Name,
			Doc:  "Virtual machines on a hypervisor that runs libvirtd.",
			Attributes: []spec.Attribute{
				{Name: "uri", Type: spec.TypeString, Default: DefaultURI, KnownAtPlan: true, Doc: "The hypervisor, as virsh takes it: qemu:///system, qemu+ssh://root@host/system, qemu+tls://host/system."},
				{Name: "pool", Type: spec.TypeString, Default: DefaultPool, KnownAtPlan: true, Doc: "The storage pool for disks. One that isn't there is made with the first disk and removed with the last."},
				{Name: "pool_path", Type: spec.TypeString, Default: DefaultPoolPath, KnownAtPlan: true, Doc: "The hypervisor's directory for a pool that is made."},
				{Name: "ssh_public_key_file", Type: spec.TypeString, KnownAtPlan: true, Doc: "Who may log in to machines made from images, unless they say so themselves; default: the first of id_ed25519.pub, id_ecdsa.pub and id_rsa.pub in ~/.ssh."},
			},
			Blocks: []spec.Block{fenceBlock()},
		},
		Objects: map[string]spec.Schema{
			addr.TypeNetwork: networkSchema().WithIdentity(),
			addr.TypeVolume:  volumeSchema().WithIdentity(),
			addr.TypeMachine: machineSchema().WithIdentity(),
		},
	}
}

// Configure reads the provider's block. It connects to nothing.
func (p *Provider) Configure(config cty.Value, env providers.Env) error {
	p.log = env.Log
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	conn, err := libvirtconn.New(libvirtconn.Config{URI: cmp.Or(text(config, "uri"), DefaultURI), Log: p.log})
	if err != nil {
		return cty.GetAttrPath("uri").NewError(err)
	}
	p.conn, p.dial = conn, conn.DialFrom
	p.pool, p.poolPath = cmp.Or(text(config, "pool"), DefaultPool), cmp.Or(text(config, "pool_path"), DefaultPoolPath)
	if !filepath.IsAbs(p.poolPath) {
		return cty.GetAttrPath("pool_path").NewErrorf("%q is no absolute path", p.poolPath)
	}
	if env.DataDir != "" {
		p.base = filepath.Dir(env.DataDir)
	}
	p.run = strings.ToLower(rand.Text()[:12])
	p.digests, p.using = map[string]imageFile{}, map[string]int{}
	p.keys, err = publicKeys(text(config, "ssh_public_key_file"))
	if err != nil {
		return cty.GetAttrPath("ssh_public_key_file").NewError(err)
	}
	return nil
}

// Close ends the connections.
func (p *Provider) Close() error {
	if p.conn == nil {
		return nil
	}
	return p.conn.Close()
}

// Apply does one phase.
func (p *Provider) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	if err := ctx.Err(); err != nil {
		return providers.ApplyResponse{}, err
	}
	gone := req.Planned == cty.NilVal || req.Planned.IsNull()
	switch {
	case req.Phase == providers.PhaseDelete && gone:
	case (req.Phase == providers.PhaseCreate || req.Phase == providers.PhaseUpdate) && !gone:
	default:
		return providers.ApplyResponse{}, fmt.Errorf("%s: there is no phase %q of a %s", req.Addr, req.Phase, req.Type)
	}
	if req.Progress == nil {
		req.Progress = func(string) {}
	}
	var o *providers.Object
	var err error
	switch {
	case req.Type == addr.TypeNetwork && gone:
		err = p.deleteNetwork(ctx, req.ID)
	case req.Type == addr.TypeNetwork:
		o, err = p.applyNetwork(ctx, req)
	case req.Type == addr.TypeVolume && gone:
		err = p.deleteVolume(ctx, req.ID, p.homeOfVolume(priorValue(req.Prior)))
	case req.Type == addr.TypeVolume:
		o, err = p.applyVolume(ctx, req)
	case req.Type == addr.TypeMachine && gone:
		err = p.deleteMachine(ctx, req)
	case req.Type == addr.TypeMachine:
		o, err = p.applyMachine(ctx, req)
	default:
		err = fmt.Errorf("provider libvirt has no objects of type %s", req.Type)
	}
	if ctx.Err() != nil && err != nil && !gone {
		p.tidy(ctx)
	}
	return providers.ApplyResponse{Object: o}, failure(err)
}

// tidy removes the pool, after a create that was cancelled, where that had come no
// further: nothing that a later run knows of would say that it is there.
func (p *Provider) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	p.storage.Lock()
	defer p.storage.Unlock()
	if err := p.conn.Do(ctx, "look for an empty pool", func(l *libvirt.Libvirt) error {
		pool, err := l.StoragePoolLookupByName(p.pool)
		if libvirtconn.NotFound(err) || err == nil && pool.UUID != poolUUID(p.pool) {
			return nil
		}
		if err == nil {
			pool, err = p.openPool(l, p.pool)
		}
		if err != nil {
			return err
		}
		return p.sweep(l, pool)
	}); err != nil {
		p.log.Info("what was cancelled may have left an empty pool", "pool", p.pool, "err", err)
	}
}

// Read says what is there.
func (p *Provider) Read(ctx context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	o, err := p.read(ctx, req.Type, req.ID, priorValue(req.Prior), priorValue(req.Prior))
	return providers.ReadResponse{Object: o}, failure(err)
}

func (p *Provider) read(ctx context.Context, typ, id string, prior, config cty.Value) (*providers.Object, error) {
	switch typ {
	case addr.TypeNetwork:
		return p.readNetwork(ctx, id)
	case addr.TypeVolume:
		if prior == cty.NilVal {
			prior = config
		}
		return p.readVolume(ctx, id, prior)
	case addr.TypeMachine:
		o, _, err := p.readMachine(ctx, id, prior, config)
		return o, err
	}
	return nil, fmt.Errorf("provider libvirt has no objects of type %s", typ)
}

// Import finds an object by its id, a machine or network also by its name or
// UUID, a volume also as pool/name.
func (p *Provider) Import(ctx context.Context, req providers.ImportRequest) (providers.ImportResponse, error) {
	id, err := p.find(ctx, req.Type, req.ID)
	if err != nil {
		return providers.ImportResponse{}, failure(err)
	}
	res := providers.ImportResponse{}
	if req.Type == addr.TypeMachine {
		var m *found
		res.Object, m, err = p.readMachine(ctx, id, cty.NilVal, req.Config)
		if m != nil && m.owner != nil {
			res.ManagedBy = spec.ManagedBy
		}
	} else {
		res.Object, err = p.read(ctx, req.Type, id, cty.NilVal, req.Config)
		if !foreignID(id) {
			res.ManagedBy = spec.ManagedBy
		}
	}
	if err == nil && res.Object == nil {
		err = fmt.Errorf("there is no %s %q at %s", req.Type, req.ID, p.conn.URI())
	}
	return res, failure(err)
}

// asDefined is v with what can't be seen from outside as the definition has it.
func asDefined(v, config cty.Value, names ...string) cty.Value {
	if config == cty.NilVal || config.IsNull() {
		return v
	}
	attrs := v.AsValueMap()
	for _, name := range names {
		if config.Type().HasAttribute(name) && config.GetAttr(name).IsWhollyKnown() {
			attrs[name] = config.GetAttr(name)
		}
	}
	return cty.ObjectVal(attrs)
}

// find gives the id of the object that people call name.
func (p *Provider) find(ctx context.Context, typ, name string) (string, error) {
	var id string
	err := p.conn.Do(ctx, "look for "+typ+" "+name, func(l *libvirt.Libvirt) error {
		id = name
		switch typ {
		case addr.TypeNetwork:
			if _, err := l.NetworkLookupByUUID(uuidOf(typ, name)); err == nil {
				return nil
			} else if !libvirtconn.NotFound(err) {
				return err
			}
			if n, err := l.NetworkLookupByName(name); err == nil {
				id = uuidText(n.UUID)
			}
		case addr.TypeMachine:
			if _, err := l.DomainLookupByUUID(uuidOf(typ, name)); err == nil {
				return nil
			} else if !libvirtconn.NotFound(err) {
				return err
			}
			if d, err := l.DomainLookupByName(name); err == nil {
				if m, err := look(l, d); err == nil && m.owner != nil && uuidOf(typ, m.owner.ID) == d.UUID {
					id = m.owner.ID
				} else {
					id = uuidText(d.UUID)
				}
			}
		}
		return nil
	})
	return id, err
}

// failure has the planner's words for what has happened.
func failure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, libvirtconn.ErrUnreachable):
		return fmt.Errorf("%w: %w", providers.ErrUnreachable, err)
	}
	return err
}

// publicKeys are the lines of the user's public key file; without one named,
// of the first that OpenSSH would take, and none where there is none.
func publicKeys(file string) ([]string, error) {
	files, named := []string{file}, file != ""
	if !named {
		files = nil
		if home, err := os.UserHomeDir(); err == nil {
			for _, name := range []string{"id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"} {
				files = append(files, filepath.Join(home, ".ssh", name))
			}
		}
	}
	for _, f := range files {
		b, err := os.ReadFile(expandHome(f))
		if err == nil {
			return keyLines(string(b)), nil
		}
		if named {
			return nil, fmt.Errorf("read the public key: %w", err)
		}
	}
	return nil, nil
}
