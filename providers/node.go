package providers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// NodesConfig makes a node provider out of what is special about its hosts.
type NodesConfig struct {
	Name   string      // as definitions name it
	Config spec.Schema // of its provider block
	// Open checks the provider block and returns its hosts. It has no effects.
	Open func(config cty.Value, env Env) (Hosts, error)
	// SameHost tells whether a node as it is now is on the host that holds it;
	// address changes that are not make the node anew.
	SameHost func(old, now spec.Node) bool
	// Ports from First to Last are given to nodes whose address names none.
	FirstPort, LastPort int
	// StartWait bounds how long an agent may take until its API answers. Default 15 s.
	StartWait time.Duration
	// PartWait bounds how long one that was restarted may take until it takes
	// part in the cluster again. Default 1 minute.
	PartWait time.Duration
	// StopGrace bounds how long an agent may take to stop its groups and end, default
	// 35 s. One that says that what it runs may take longer has that, and 15 s.
	StopGrace time.Duration
	// CertLife of nodes' certificates. Default pki.NodeLife, a year.
	CertLife time.Duration
}

// Nodes is a provider of nodes: the node lifecycle over hosts. Nothing here
// knows what kind of host it is.
//
// Every phase looks at what is there, does what is missing, and may be called
// again after a crash at any moment. Read has no effects.
type Nodes struct {
	cfg   NodesConfig
	env   Env
	hosts Hosts

	mu       sync.Mutex
	programs map[string]string // sha256 of programs, hex, by file
	silent   map[string]silence
}

// silence is what came of an attempt to reach a host, by its name.
type silence struct {
	err   error
	since time.Time
}

// NewNodes is a provider of nodes; it needs Configure before use.
func NewNodes(cfg NodesConfig) *Nodes {
	if cfg.StartWait == 0 {
		cfg.StartWait = 15 * time.Second
	}
	if cfg.PartWait == 0 {
		cfg.PartWait = time.Minute
	}
	if cfg.StopGrace == 0 {
		cfg.StopGrace = 35 * time.Second
	}
	if cfg.CertLife == 0 {
		cfg.CertLife = pki.NodeLife
	}
	return &Nodes{cfg: cfg}
}

// Schema is the provider block's and the node's.
func (p *Nodes) Schema() Schema {
	return Schema{Config: p.cfg.Config, Objects: map[string]spec.Schema{addr.TypeNode: spec.NodeSchema()}}
}

// Configure checks the provider block.
func (p *Nodes) Configure(config cty.Value, env Env) error {
	hosts, err := p.cfg.Open(config, env)
	if err != nil {
		return err
	}
	if hosts.FirstPort == 0 {
		hosts.FirstPort, hosts.LastPort = p.cfg.FirstPort, p.cfg.LastPort
	}
	if env.Nodes == nil {
		env.Nodes = new(Directory)
	}
	p.env, p.hosts = env, hosts
	p.programs = map[string]string{}
	return nil
}

// Close lets go of what the hosts hold open.
func (p *Nodes) Close() error {
	if p.hosts.Close == nil {
		return nil
	}
	return p.hosts.Close()
}

// node is a node's value as Go.
type node struct {
	spec.Node
	Port     int    `json:"port"`
	Endpoint string `json:"endpoint"`
	ServerID uint64 `json:"server_id"`
	Program  string `json:"program"`
}

// NodePrivate is what the node lifecycle keeps in state beside a node's value.
type NodePrivate struct {
	// Dir is the node's directory under NodesDir: its name when it was made,
	// which may have changed since.
	Dir string `json:"dir"`
	// Place is the Hosts.Place that it was put with; none before there were any.
	Place map[string]string `json:"place,omitempty"`
	// Arch is the host's architecture; "": that of the program that runs.
	Arch string `json:"arch,omitempty"`
}

// decodeNode reads a node's value. What is unknown is taken from prior, or
// left empty.
func decodeNode(v cty.Value, prior *Object) (node, error) {
	var n node
	if v == cty.NilVal || v.IsNull() {
		return n, nil
	}
	v, _ = v.UnmarkDeep()
	attrs := v.AsValueMap()
	for name, a := range attrs {
		if a.IsWhollyKnown() {
			continue
		}
		attrs[name] = cty.NullVal(a.Type())
		if prior != nil && prior.Value != cty.NilVal && prior.Value.Type().HasAttribute(name) {
			attrs[name] = prior.Value.GetAttr(name)
		}
	}
	v = cty.ObjectVal(attrs)
	data, err := ctyjson.Marshal(v, v.Type())
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err != nil {
		return n, fmt.Errorf("read the node's value: %w", err)
	}
	return n, nil
}

// object is n as an Object: v with what is computed.
func object(id string, own NodePrivate, v cty.Value, n node) (*Object, error) {
	attrs := map[string]cty.Value{}
	if v != cty.NilVal && !v.IsNull() {
		attrs = v.AsValueMap()
	}
	known := func(name string, value cty.Value, ok bool) {
		attrs[name] = value
		if !ok {
			attrs[name] = cty.NullVal(value.Type())
		}
	}
	known("endpoint", cty.StringVal(n.Endpoint), n.Endpoint != "")
	known("server_id", cty.NumberUIntVal(n.ServerID), n.ServerID != 0)
	known("program", cty.StringVal(n.Program), n.Program != "")
	for name, a := range attrs {
		if !a.IsWhollyKnown() {
			attrs[name] = cty.NullVal(a.Type())
		}
	}
	private, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	return &Object{ID: id, Value: cty.ObjectVal(attrs), Private: private}, nil
}

// private is what the lifecycle kept of a node; empty where it kept nothing.
func private(o *Object) NodePrivate {
	var own NodePrivate
	if o != nil && len(o.Private) > 0 {
		_ = json.Unmarshal(o.Private, &own) // damaged: as if it had none; the directory is looked for
	}
	if own.Dir != dirName(own.Dir, "") {
		own.Dir = "" // nothing that we wrote
	}
	return own
}

func privateDir(o *Object) string { return private(o).Dir }

// dirName is a node's name as the name of a directory: instance keys may hold
// anything, and a path must not lead out of NodesDir.
func dirName(name, id string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, name)
	if safe != name || strings.HasPrefix(safe, ".") {
		return strings.TrimLeft(safe, ".") + "-" + id
	}
	return safe
}

// site is one node's place: its host and its directory there.
type site struct {
	host Host
	id   string
	dir  string // NodesDir/name
	conf *AgentConfig
	arch string // of its host; "" where it isn't known
}

func (s *site) path(name string) string { return path.Join(s.dir, name) }

// abs is a path for people.
func (s *site) abs(name string) string { return path.Join(s.host.Root(), s.dir, name) }

var (
	errOtherNode = errors.New("the directory belongs to another node")
	errDamaged   = errors.New("the node's configuration is damaged")
)

// host is the computer of a node. How it is reached is what the definition says
// now, where that means the same computer: what the state says may be as old as
// the key or the port that nobody lets in any more.
func (p *Nodes) host(n node) (Host, error) {
	if v, ok := p.env.Defined[n.Addr]; ok {
		d, err := decodeNode(v, nil)
		switch {
		case err != nil || d.Provider != p.cfg.Name:
		case n.Address == "" && n.Provider == "": // a create that was cut off before anyone wrote down more than its id
			n.Address, n.SSH = d.Address, d.SSH
		case p.cfg.SameHost(n.Node, d.Node):
			n.SSH = d.SSH
		}
	}
	return p.hosts.Host(n.Node)
}

// HostAt is the host of the node that has the endpoint; nil: the run knows none
// of this provider there.
func (p *Nodes) HostAt(endpoint string) (Host, error) {
	if p.env.Nodes == nil {
		return nil, nil
	}
	for _, e := range p.env.Nodes.All() {
		if e.Endpoint != endpoint || e.Spec.Provider != p.cfg.Name {
			continue
		}
		n := node{Node: e.Spec}
		for a, v := range p.env.Defined { // entries have names, and no addresses
			if name := v.GetAttr("name"); name.IsKnown() && !name.IsNull() && name.AsString() == e.Name {
				n.Addr = a
			}
		}
		return p.host(n)
	}
	return nil, nil
}

// locate finds the directory of the node id: where it was put, else by its
// name, else wherever its id is. conf is nil where there is none.
func (p *Nodes) locate(ctx context.Context, host Host, id string, n node, prior *Object) (*site, error) {
	s, err := &site{host: host, id: id}, error(nil)
	vacant := ""
	for _, name := range []string{privateDir(prior), dirName(n.Name, id)} {
		if name == "" {
			continue
		}
		s.dir = path.Join(NodesDir, name)
		s.conf, err = readAgentConfig(ctx, host, s.dir)
		if errors.Is(err, errDamaged) && name == privateDir(prior) {
			s.conf, err = &AgentConfig{NodeID: id}, nil // ours by the state; install writes the file again
		}
		if err != nil {
			return nil, err
		}
		if s.conf != nil && s.conf.NodeID == id {
			return s, nil
		}
		if s.conf == nil && vacant == "" {
			vacant = s.dir
		}
	}
	names, err := host.Files().List(ctx, NodesDir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		dir := path.Join(NodesDir, name)
		conf, err := readAgentConfig(ctx, host, dir)
		if err == nil && conf != nil && conf.NodeID == id {
			s.dir, s.conf = dir, conf
			return s, nil
		}
	}
	if vacant != "" || s.conf == nil { // nil: nothing is known of it but its id
		s.dir, s.conf = vacant, nil
		return s, nil
	}
	return s, p.elsewhere(ctx, s)
}

// elsewhere decides where a node goes whose name another one's directory has:
// s.conf is that one's.
func (p *Nodes) elsewhere(ctx context.Context, s *site) error {
	other := *s.conf
	s.conf = nil
	for _, e := range p.env.Nodes.All() {
		if e.NodeID == other.NodeID { // renamed: it keeps its directory
			s.dir += "-" + s.id
			return nil
		}
	}
	advice := "move it away, or remove it if nothing in it is needed"
	if pid, err := s.host.Alive(ctx, s.dir); err == nil && pid > 0 { // without its directory it would go on, and serve on
		advice = fmt.Sprintf("its agent runs (process %d), and serves what that cluster has it serve; %s", pid, endOther)
	}
	return fmt.Errorf("%w: %s holds node %s of cluster %s (%s), which this state does not know; %s",
		errOtherNode, s.abs(""), other.NodeID, other.ClusterID, other.Name, advice)
}

// endOther is what to do about an agent that the state does not know.
const endOther = "if it is wanted, bring the state back that knows it (a backup: clusterplan state push); if not, end it before its directory is moved or removed"

// homeless finds an agent that runs in the place where a node is to be made: its
// directory was taken away under it, and its cluster is none of this state's. The
// new node's agent could not be told from it.
func (p *Nodes) homeless(ctx context.Context, s *site) error {
	if s.conf != nil || s.dir == "" {
		return nil
	}
	pid, err := s.host.Alive(ctx, s.dir)
	if err != nil || pid == 0 {
		return err
	}
	return fmt.Errorf("an agent that this state does not know (process %d) runs for %s, whose directory was moved or removed under it; it serves what its cluster has it serve: if it is wanted, put the directory back, and the state that knows it; if not, end it",
		pid, s.abs(""))
}

func readAgentConfig(ctx context.Context, host Host, dir string) (*AgentConfig, error) {
	data, err := host.Files().Read(ctx, path.Join(dir, AgentConfigFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	conf := &AgentConfig{}
	err = json.Unmarshal(data, conf)
	if err == nil && conf.NodeID == "" {
		err = errors.New("it names no node_id")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; remove the file, apply writes it again", errDamaged, path.Join(host.Root(), dir, AgentConfigFile), err)
	}
	return conf, nil
}

// listenAddress is where a node's definition wants it to listen; host "" and
// port 0: any.
func listenAddress(n node) (host string, port int, err error) {
	host, port = n.Address, n.Port
	if h, text, splitErr := net.SplitHostPort(n.Address); splitErr == nil {
		host = h
		if port, err = strconv.Atoi(text); err != nil || port < 1 || port > 65535 {
			return "", 0, cty.GetAttrPath("address").NewErrorf("%q is no port; write address = \"host:port\" with a port from 1 to 65535", text)
		}
	}
	return host, port, nil
}

// programFile is where a program lies under a host's root.
func programFile(digest string) string { return path.Join(BinDir, "clusterplan-"+digest[:16]) }
