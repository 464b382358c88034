package providers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/internal/shell"
)

// Read says what is there of a node: nothing, or its value with what is not as
// it should be. It asks the host, the agent and, where it can be had, the
// cluster; it changes nothing.
func (p *Nodes) Read(ctx context.Context, req ReadRequest) (ReadResponse, error) {
	var v cty.Value
	if req.Prior != nil {
		v = req.Prior.Value
	}
	n, err := decodeNode(v, nil)
	if err != nil {
		return ReadResponse{}, err
	}
	n.Addr = req.Addr
	host, err := p.host(n)
	if err != nil {
		return ReadResponse{}, fmt.Errorf("read %s: %w", req.Addr, err)
	}
	s, err := p.locate(ctx, host, req.ID, n, req.Prior)
	if errors.Is(err, errOtherNode) {
		err = nil
		s.conf = nil
	}
	if err != nil {
		return ReadResponse{}, fmt.Errorf("read %s: %w", req.Addr, err)
	}
	var health []string
	if s.conf == nil {
		if n.ServerID == 0 { // it never got so far that anyone could know it
			return ReadResponse{}, nil
		}
		health = []string{HealthGone + p.emptied(ctx, s.host, "", s.dir)}
		if pid, err := s.host.Alive(ctx, s.dir); err != nil {
			return ReadResponse{}, fmt.Errorf("read %s: %w", req.Addr, err)
		} else if pid != 0 {
			health = append(health, HealthHomeless)
		} else {
			p.env.Nodes.Remove(req.ID) // its data is gone, and nobody has it in memory: it holds no database any more
		}
		p.env.Nodes.Put(Entry{NodeID: req.ID, Name: n.Name, Endpoint: n.Endpoint, Spec: n.Node})
	} else {
		n.Name = firstOf(n.Name, s.conf.Name)
		n.Endpoint = firstOf(n.Endpoint, s.conf.Address)
		p.env.Nodes.Put(Entry{NodeID: req.ID, Name: n.Name, Endpoint: n.Endpoint, ServerID: n.ServerID, Spec: n.Node})
		if health, err = p.inspect(ctx, s, &n); err == nil && len(p.moved(req.Prior)) == 0 {
			var around []string
			around, err = s.host.Inspect(ctx, s.dir)
			health = append(health, around...)
		}
		if err != nil {
			return ReadResponse{}, fmt.Errorf("read %s: %w", req.Addr, err)
		}
	}
	own := private(req.Prior)
	if own.Dir == "" { // its create was cut off, or damaged: taken for where it should be
		own.Place = p.hosts.Place
	}
	own.Dir = path.Base(s.dir)
	own.Arch = cmp.Or(s.arch, own.Arch)
	o, err := object(req.ID, own, v, n)
	if err != nil {
		return ReadResponse{}, err
	}
	if req.Prior == nil || req.Prior.Value == cty.NilVal {
		attrs := o.Value.AsValueMap()
		attrs["name"] = cty.StringVal(n.Name)
		o.Value = cty.ObjectVal(attrs)
	}
	o.Health = health
	return ReadResponse{Object: o}, nil
}

// emptied tells of the first of some directories that is there and has nothing in
// it, which is how a place looks whose file system is not mounted; "": none.
func (p *Nodes) emptied(ctx context.Context, host Host, dirs ...string) string {
	q, ok := host.(Prober)
	if !ok {
		return ""
	}
	script := "for d in"
	for _, dir := range dirs {
		script += " " + shell.Quote(path.Join(host.Root(), dir))
	}
	out, err := q.Probe(ctx, script+`; do if [ -d "$d" ] && [ -z "$(ls -A "$d")" ]; then echo "$d"; exit; fi; done`)
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" { // it only explains
		return ""
	}
	return ": " + dir + " is there and empty; is a file system not mounted?"
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// inspect looks at a node whose directory is there. n gets what it learns.
func (p *Nodes) inspect(ctx context.Context, s *site, n *node) ([]string, error) {
	identity := p.identity()
	if identity == nil {
		return nil, errors.New("the state does not hold the cluster's identity")
	}
	var health []string
	want := s.config(identity, *n)
	want.Version = s.conf.Version
	if *s.conf != want {
		health = append(health, HealthConfig)
	}
	digest, err := p.installedProgram(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.arch, err = s.host.Arch(ctx); err != nil {
		return nil, err
	}
	_, wanted, err := p.program(s.arch)
	if errors.Is(err, errNoProgram) { // to be told by a plan that needs it; a destroy doesn't
		wanted, err = cmp.Or(n.Program, digest), nil
	}
	if err != nil {
		return nil, err
	}
	words, err := p.inspectKeys(ctx, s, identity)
	if err != nil {
		return nil, err
	}

	pid, err := s.host.Alive(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	n.Program = wanted
	differs := digest != wanted[:min(16, len(wanted))]
	if differs {
		n.Program = ""
	}
	if pid == 0 {
		health = append(health, HealthNotRunning)
	}
	if n.ServerID != 0 { // what it starts with then, or when it starts again, is another server, which has to join
		data, err := s.host.Files().List(ctx, s.path(DataDirName))
		if err != nil {
			return nil, err
		}
		if len(data) == 0 {
			health = append(health, HealthNoData+p.emptied(ctx, s.host, s.path(DataDirName)))
		}
	}
	if pid == 0 {
		// Nobody answers.
	} else if self, err := p.lately(ctx, s, n.Endpoint, identity); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// One whose certificate has expired runs, and takes a new one as it does.
		if !errors.Is(err, pki.ErrExpired) || words == "" {
			health = append(health, HealthNoAnswer)
		}
	} else {
		if self.Program != "" && self.Program != wanted {
			differs = true
		}
		n.Program = self.Program
		if n.ServerID != self.ServerID {
			n.ServerID = self.ServerID
			p.env.Nodes.Put(Entry{NodeID: s.id, ServerID: self.ServerID})
		}
	}
	if differs {
		health = append(health, HealthProgram)
	}
	if words != "" {
		health = append(health, words)
	}
	member, err := p.inspectMember(ctx, s, n)
	return append(health, member...), err
}

// How long Read waits for an agent that runs: one that has just been asked in
// vain, with all others at once, gets another chance and no more.
const (
	readWait  = 5 * time.Second
	againWait = time.Second
)

// lately is what the agent says of itself, or has just said when all were asked.
func (p *Nodes) lately(ctx context.Context, s *site, endpoint string, identity *pki.Identity) (Self, error) {
	if self, ok := p.env.Nodes.said(s.id, endpoint); ok && self.ClusterID == identity.ID {
		return self, nil
	}
	return p.self(ctx, s, endpoint, identity, p.patience(s.id))
}

func (p *Nodes) patience(id string) time.Duration {
	if p.env.Nodes.Silent(id) {
		return againWait
	}
	return readWait
}

// installedProgram is the first 16 digits of the installed program's digest; "": none.
func (p *Nodes) installedProgram(ctx context.Context, s *site) (string, error) {
	target, err := s.host.Files().ReadLink(ctx, s.path(AgentLink))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EINVAL) { // EINVAL: it is no link, so not ours
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := path.Base(target)
	if len(name) < 16 {
		return "", nil
	}
	present, err := s.host.Files().List(ctx, BinDir)
	if err != nil {
		return "", err
	}
	for _, other := range present {
		if other == name {
			return name[len(name)-16:], nil
		}
	}
	return "", nil
}

// inspectKeys looks at certificate and keys; "": as they should be.
func (p *Nodes) inspectKeys(ctx context.Context, s *site, identity *pki.Identity) (string, error) {
	read := func(name string) ([]byte, error) {
		data, err := s.host.Files().Read(ctx, s.path(name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
	ca, err := read(CACertFile)
	if err != nil {
		return "", err
	}
	key, err := read(ClusterKeyFile)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(ca, identity.CACert) || string(key) != identity.KeyText() {
		return HealthKeys, nil
	}
	cert, err := read(NodeCertFile)
	if err != nil {
		return "", err
	}
	private, err := read(NodeKeyFile)
	if err != nil {
		return "", err
	}
	return certHealth(cert, private, identity, s.id, time.Now()), nil
}

// inspectMember compares with what the cluster knows of the node, where it can
// be asked: what it can't tell is no finding.
func (p *Nodes) inspectMember(ctx context.Context, s *site, n *node) ([]string, error) {
	if p.env.Cluster == nil {
		return nil, nil
	}
	m, err := p.env.Cluster.MemberState(ctx, s.id)
	switch {
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrNoQuorum):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if m.State == "" {
		return []string{HealthNotMember}, nil
	}
	var health []string
	other := n.ServerID != 0 && m.ServerID != n.ServerID
	switch {
	case other:
		health = append(health, HealthServer)
	case m.State == MemberJoining, m.State == MemberLearner && n.Votes > 0:
		health = append(health, HealthNotCaught)
	}
	if m.DrainedByApply {
		health = append(health, HealthDrained)
	}
	if other { // it joins with its settings
		return health, nil
	}
	if m.Endpoint != n.Endpoint || !sameSettings(m.Spec, n.Node) {
		health = append(health, HealthSettings)
	}
	return health, nil
}
