package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/burst"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/confdb"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// registry is the providers of a run: the nodes are the world's, the database
// is read through the agents' API.
func registry(state *statefile.State) (*providers.Registry, error) {
	world, nodes := plannertest.New(), new(providers.Directory)
	for i := range state.Objects {
		o := &state.Objects[i]
		if o.Addr.Type != addr.TypeNode {
			continue
		}
		v, err := schema.FromJSON(o.Attributes, schema.Type(spec.NodeSchema()))
		if err != nil {
			return nil, err
		}
		world.Hosts[o.ID] = &plannertest.Host{Value: v, Program: world.Program, Running: true, Server: 1}
		if err := nodes.AddStored(o.ID, o.Attributes); err != nil {
			return nil, err
		}
	}
	local, err := world.Registry().Provider("local")
	if err != nil {
		return nil, err
	}
	database := confdb.New()
	err = database.Configure(cty.EmptyObjectVal, providers.Env{Nodes: nodes, Identity: func() *pki.Identity {
		if state.Cluster == nil {
			return nil
		}
		c := state.Cluster
		return &pki.Identity{ID: c.ID, Name: c.Name, CACert: []byte(c.CACert), CAKey: []byte(c.CAKey)}
	}})
	return providers.NewRegistry(map[string]providers.Provider{"local": local, "confdb": database}), err
}

// load reads a definition; parsed is told the bytes of its text before it is
// evaluated. only: nobody applies it.
func load(dir string, r *providers.Registry, only bool, parsed func(text int)) (*lang.Definition, error) {
	blocks := map[string]spec.Schema{}
	for name, s := range r.Schemas() {
		blocks[name] = s.Config
	}
	conf, diags := lang.Load(lang.Options{FS: os.DirFS(dir), Providers: blocks})
	if diags.HasErrors() {
		return nil, diags
	}
	parsed(conf.Size())
	def, diags := conf.Evaluate(nil)
	if diags.HasErrors() {
		return nil, diags
	}
	from := def.Blocks()
	if only {
		def.Settle()
	}
	burst.Evaluated(len(def.Objects), from)
	return def, nil
}

// planOnce goes the whole way of a plan and prints what it came to.
func planOnce(ctx context.Context, dir string) error {
	store, err := localstore.Open(localstore.DefaultPath(dir), localstore.Options{})
	if err != nil {
		return err
	}
	snap, err := store.Read(context.Background())
	if err != nil {
		return err
	}
	r, err := registry(&snap.State)
	if err != nil {
		return err
	}
	defer r.Close()
	p, _, err := plan(ctx, dir, snap, r, true, burst.Planning) // as the command does
	if err != nil {
		return err
	}
	return tell(p)
}

func plan(ctx context.Context, dir string, snap *statefile.Snapshot, r *providers.Registry, only bool, parsed func(text int)) (*planner.Plan, *lang.Definition, error) {
	def, err := load(dir, r, only, parsed)
	if err != nil {
		return nil, nil, err
	}
	world, err := refresh.Run(ctx, refresh.Config{State: snap.State, Pending: snap.Pending, Providers: r, Definition: def, Only: only})
	if err != nil {
		return nil, nil, err
	}
	burst.Looked()
	p, diags := planner.Build(planner.Input{Definition: def, State: snap.State, Pending: snap.Pending, World: world, Providers: r, Only: only, Foreseen: burst.Foreseen})
	if diags.HasErrors() {
		return nil, nil, diags
	}
	if len(p.Unreachable) > 0 {
		return nil, nil, fmt.Errorf("unreachable: %s", p.Unreachable[0].Reason)
	}
	return p, def, nil
}

func tell(p *planner.Plan) error {
	out := outcome{Objects: len(p.Changes), Changes: len(p.Changes) - p.Summary.NoOp}
	for _, c := range p.Changes {
		if c.Action() != "no-op" && out.Example == "" {
			out.Example = fmt.Sprint(c.Address, " ", c.Why, c.Attributes)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// settle makes the definition's objects be there: a state that knows them, and
// an agent's API that has them. It returns what ends the server. groups false:
// only the cluster and its nodes, and nobody serves.
func settle(dir string, groups bool) (func(), error) {
	identity, err := pki.NewIdentity("bench")
	if err != nil {
		return nil, err
	}
	r, err := registry(new(statefile.State))
	if err != nil {
		return nil, err
	}
	def, err := load(dir, r, false, func(int) {})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	state := statefile.State{Cluster: &statefile.Cluster{
		ID: identity.ID, Name: identity.Name, CACert: string(identity.CACert), CAKey: string(identity.CAKey),
		Key: base64.StdEncoding.EncodeToString(identity.Key),
	}}
	ids := map[addr.Address]string{addr.Cluster(): identity.ID}
	for i := range def.Objects {
		o := &def.Objects[i]
		if !groups && o.Type != addr.TypeCluster && o.Type != addr.TypeNode {
			continue
		}
		if ids[o.Addr] == "" {
			ids[o.Addr] = pki.NewID()
		}
		v := o.Value
		if o.Type == addr.TypeNode {
			attrs := v.AsValueMap()
			attrs["endpoint"], attrs["server_id"], attrs["program"] = cty.StringVal(listener.Addr().String()), cty.NumberIntVal(1), cty.StringVal("p1")
			v = cty.ObjectVal(attrs)
		}
		text, err := schema.ToJSON(v)
		if err != nil {
			return nil, err
		}
		state.Objects = append(state.Objects, statefile.Object{Addr: o.Addr, Type: o.Type, Provider: o.Provider, ID: ids[o.Addr], Attributes: text})
	}
	if err := save(dir, state); err != nil {
		return nil, err
	}
	if !groups {
		return func() {}, listener.Close()
	}
	node := ids[addr.Node("n1", addr.NoKey)]
	return serve(listener, identity, node, database(def.Spec(), ids, listener.Addr().String()))
}

func save(dir string, state statefile.State) error {
	store, err := localstore.Open(localstore.DefaultPath(dir), localstore.Options{})
	if err != nil {
		return err
	}
	lock, err := store.Lock(context.Background(), statefile.LockRequest{Who: "bench", What: "plan"})
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := lock.Append(statefile.Entry{Begin: &statefile.Begin{Run: "bench"}}); err != nil {
		return err
	}
	return lock.Finish(state)
}

// database is the configuration as an agent's API tells it.
func database(def *spec.Definition, ids map[addr.Address]string, endpoint string) client.Config {
	conf := client.Config{FormatVersion: client.FormatVersion, Revision: 7, ConfigRevision: 7, Quorum: true, Cluster: def.Cluster}
	conf.Cluster.ID, conf.Cluster.ManagedBy = ids[addr.Cluster()], spec.ManagedBy
	for _, n := range def.Nodes {
		n.ID = ids[n.Addr]
		conf.Members = append(conf.Members, client.ConfigMember{State: "voter", Node: spec.NodeUp,
			MemberRequest: client.MemberRequest{Spec: n, ServerID: 1, Endpoint: endpoint}})
	}
	for _, g := range def.Groups {
		g.ID, g.ManagedBy = ids[g.Addr], spec.ManagedBy
		for i := range g.Resources {
			g.Resources[i].ID = ids[g.Resources[i].Addr]
		}
		conf.Groups = append(conf.Groups, client.ConfigGroup{Spec: g, Want: spec.WantOnline, Owner: "n1", Epoch: 1, State: spec.StateOnline})
	}
	return conf
}

// serve answers as the agents of the three nodes would.
func serve(l net.Listener, identity *pki.Identity, node string, conf client.Config) (func(), error) {
	cert, err := identity.NodeCert(node, "n1", time.Hour)
	if err != nil {
		return nil, err
	}
	pair, err := cert.TLS()
	if err != nil {
		return nil, err
	}
	tlsConf, err := pki.ServerConfig(identity.CACert, identity.ID, pair, "h2", "http/1.1")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	self, err := json.Marshal(client.Self{FormatVersion: client.FormatVersion, ClusterID: identity.ID, NodeID: node, Name: "n1", ServerID: 1, Membership: "voter", Leader: "n1", Quorum: true, Revision: 7})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+client.PathConfig, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = w.Write(text)
	})
	mux.HandleFunc("GET "+client.PathSelf, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(self) })
	srv := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)} // a look at the port is no news
	go func() { _ = srv.Serve(tls.NewListener(l, tlsConf)) }()
	return func() { srv.Close() }, nil
}
