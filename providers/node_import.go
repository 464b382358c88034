package providers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Import finds a node of this cluster that no state knows: by its id, the name
// of its directory or that directory, where its agent listens, or its name.
// What the cluster keeps of it comes from there.
func (p *Nodes) Import(ctx context.Context, req ImportRequest) (ImportResponse, error) {
	identity := p.identity()
	if identity == nil {
		return ImportResponse{}, errors.New("the state does not hold the cluster's identity, by which its nodes are known; bring the state back, or apply first")
	}
	at := node{Node: spec.Node{Address: req.ID}}
	if req.Config != cty.NilVal && !req.Config.IsNull() {
		given, err := decodeNode(req.Config, nil)
		if err != nil {
			return ImportResponse{}, err
		}
		if given.Address != "" || given.SSH.Host != "" {
			at = given
		}
	}
	at.Addr = req.Addr
	host, err := p.host(at)
	if err != nil {
		return ImportResponse{}, err
	}
	found, err := p.found(ctx, host, req.ID, identity.ID)
	if err != nil {
		return ImportResponse{}, err
	}
	conf := found.conf
	n := node{Endpoint: conf.Address}
	n.SSH = at.SSH
	n.Name, n.Provider = conf.Name, p.cfg.Name
	n.Watchdog, n.WatchdogTimeout, n.Reset = conf.Watchdog, conf.WatchdogTimeout, conf.Reset
	n.Role, n.Votes = spec.RoleMember, 1
	member, err := p.introduced(ctx, host, found, identity.ID)
	if err != nil {
		return ImportResponse{}, fmt.Errorf("what the cluster keeps of node %s is not known: %w", conf.Name, err)
	}
	if member.State != MemberNone {
		n.Node, n.ServerID = member.Spec, member.ServerID
		n.Name, n.Provider, n.SSH = conf.Name, p.cfg.Name, at.SSH
	}
	v, err := p.imported(n, req.Config)
	if err != nil {
		return ImportResponse{}, err
	}
	read, err := p.Read(ctx, ReadRequest{Addr: req.Addr, Type: req.Type, ID: found.id, Prior: &Object{ID: found.id, Value: v}})
	if err != nil {
		return ImportResponse{}, err
	}
	return ImportResponse{Object: read.Object, ManagedBy: spec.ManagedBy}, nil
}

// found is the one node of the cluster that id means.
func (p *Nodes) found(ctx context.Context, host Host, id, cluster string) (*site, error) {
	names, err := host.Files().List(ctx, NodesDir)
	if err != nil {
		return nil, err
	}
	var ours []string
	ways := make([][]*site, 4)
	for _, name := range names {
		dir := path.Join(NodesDir, name)
		conf, err := readAgentConfig(ctx, host, dir)
		if err != nil && name == id {
			return nil, err
		}
		if err != nil || conf == nil {
			continue
		}
		s := &site{host: host, id: conf.NodeID, dir: dir, conf: conf}
		if conf.ClusterID == cluster {
			ours = append(ours, conf.Name)
		}
		for i, is := range []bool{conf.NodeID == id, name == id || s.abs("") == path.Clean(id), conf.Address == id || hostOf(conf.Address) == id, conf.Name == id} {
			if is {
				ways[i] = append(ways[i], s)
			}
		}
	}
	for _, list := range ways {
		own := slices.DeleteFunc(slices.Clone(list), func(s *site) bool { return s.conf.ClusterID != cluster })
		switch {
		case len(own) == 1:
			return own[0], nil
		case len(own) > 1:
			return nil, fmt.Errorf("%q is %d nodes of this cluster: %s and %s; name one by its directory or its id", id, len(own), own[0].abs(""), own[1].abs(""))
		case len(list) > 0:
			return nil, fmt.Errorf("%s belongs to cluster %s (%s), and this is %s: a node of another cluster is never taken", list[0].abs(""), list[0].conf.Cluster, list[0].conf.ClusterID, cluster)
		}
	}
	there := "there is none under " + path.Join(host.Root(), NodesDir)
	if len(ours) > 0 {
		there = "there are " + strings.Join(ours, ", ")
	}
	return nil, fmt.Errorf("no node of this cluster is %q: %s; a node is named by its id, its directory, its address or its name. One whose directory is lost for good can't be imported: clusterplan evict takes it out of the cluster, and an apply makes it anew", id, there)
}

// introduced asks the cluster about a node that no state tells of, through all
// nodes that are there: the state may have lost all of them. They are known for
// as long as this takes, but for s itself.
func (p *Nodes) introduced(ctx context.Context, host Host, s *site, cluster string) (MemberState, error) {
	if p.env.Cluster == nil {
		return MemberState{}, nil
	}
	known := map[string]bool{}
	for _, e := range p.env.Nodes.All() {
		known[e.NodeID] = true
	}
	names, err := host.Files().List(ctx, NodesDir)
	if err != nil {
		return MemberState{}, err
	}
	for _, name := range names {
		conf, err := readAgentConfig(ctx, host, path.Join(NodesDir, name))
		if err != nil || conf == nil || conf.ClusterID != cluster || conf.Address == "" || known[conf.NodeID] {
			continue
		}
		p.env.Nodes.Put(Entry{NodeID: conf.NodeID, Name: conf.Name, Endpoint: conf.Address, Spec: spec.Node{Name: conf.Name, Provider: p.cfg.Name}})
		if conf.NodeID != s.id {
			defer p.env.Nodes.Remove(conf.NodeID)
		}
	}
	return p.env.Cluster.MemberState(ctx, s.id)
}

// imported is a node's value as a definition would have it. Where it listens
// can be written in several ways: as config does, if that means the same.
func (p *Nodes) imported(n node, config cty.Value) (cty.Value, error) {
	s := spec.NodeSchema()
	attrs := schema.BlockDefault(spec.Block{Attributes: s.Attributes, Blocks: s.Blocks}).AsValueMap()
	n.Address = ""
	known, err := schema.Encode(n.Node, schema.Type(s))
	if err != nil {
		return cty.NilVal, fmt.Errorf("read node %s: %w", n.Name, err)
	}
	for _, a := range s.Attributes {
		v := known.GetAttr(a.Name)
		if a.Computed || v.IsNull() || a.Type == spec.TypeDuration && v.AsString() == "0s" {
			continue
		}
		attrs[a.Name] = v
	}
	host, port, err := splitEndpoint(n.Endpoint)
	if err != nil {
		return cty.NilVal, fmt.Errorf("read node %s: %w", n.Name, err)
	}
	var given node
	asked := config != cty.NilVal && !config.IsNull() && config.GetAttr("address").IsWhollyKnown() && config.GetAttr("port").IsWhollyKnown()
	if asked {
		if given, err = decodeNode(config, nil); err != nil {
			return cty.NilVal, err
		}
		wantHost, wantPort, err := listenAddress(given)
		asked = err == nil && (wantHost == host || wantHost == "" && (p.hosts.Chooses || host == loopback)) && (wantPort == 0 || wantPort == port)
	}
	switch ours := port >= p.hosts.FirstPort && port <= p.hosts.LastPort; {
	case asked:
		attrs["address"], attrs["port"] = config.GetAttr("address"), config.GetAttr("port")
	case ours && host == loopback && !p.hosts.Chooses:
	case ours:
		attrs["address"] = cty.StringVal(host)
	default:
		attrs["address"] = cty.StringVal(n.Endpoint)
	}
	o, err := object("", NodePrivate{}, cty.ObjectVal(attrs), n)
	if err != nil {
		return cty.NilVal, err
	}
	return o.Value, nil
}

func splitEndpoint(endpoint string) (string, int, error) {
	var n node
	n.Address = endpoint
	return listenAddress(n)
}
