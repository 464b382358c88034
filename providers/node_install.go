package providers

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
)

// config is what a node's agent.json should say.
func (s *site) config(identity *pki.Identity, n node) AgentConfig {
	return AgentConfig{ClusterID: identity.ID, Cluster: identity.Name, NodeID: s.id, Name: n.Name, Address: n.Endpoint,
		Watchdog: n.Watchdog, WatchdogTimeout: n.WatchdogWait(), Reset: n.Reset}
}

// doInstall puts program, keys, certificate and configuration in place.
func (p *Nodes) doInstall(ctx context.Context, s *site, identity *pki.Identity, n *node) error {
	if s.conf != nil && s.conf.ClusterID != "" && s.conf.ClusterID != identity.ID {
		return fmt.Errorf("install node %s: %s belongs to cluster %s (%s); this is %s: remove the directory if nothing in it is needed",
			n.Name, s.abs(""), s.conf.Cluster, s.conf.ClusterID, identity.ID)
	}
	endpoint, err := p.endpoint(ctx, s, *n)
	if err != nil {
		return fmt.Errorf("install node %s: %w", n.Name, err)
	}
	n.Endpoint = endpoint
	conf := s.config(identity, *n)
	conf.Version = p.env.Version
	text, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return err
	}
	// The configuration first: with it the directory says whose it is.
	var files []File
	for _, f := range []File{{Path: AgentConfigFile, Data: append(text, '\n')}, {Path: CACertFile, Data: identity.CACert}, {Path: ClusterKeyFile, Data: []byte(identity.KeyText())}} {
		if err == nil {
			files, err = p.changed(ctx, s, files, f)
		}
	}
	if err == nil {
		files, err = p.cert(ctx, s, identity, n, files)
	}
	if err == nil {
		err = s.host.Files().Write(ctx, files...)
	}
	if err == nil {
		s.conf = &conf
		p.env.Nodes.Put(Entry{NodeID: s.id, Name: n.Name, Endpoint: endpoint, Spec: n.Node})
		err = s.host.Prepare(ctx, s.dir)
	}
	if err == nil {
		err = p.installProgram(ctx, s, n)
	}
	if err == nil {
		err = p.prune(ctx, s.host)
	}
	if err != nil {
		return fmt.Errorf("install node %s: %w", n.Name, err)
	}
	return nil
}

// changed adds a file of the node to those to be written, 0600, unless it is
// there like that already.
func (p *Nodes) changed(ctx context.Context, s *site, files []File, f File) ([]File, error) {
	f.Path, f.Perm = s.path(f.Path), 0o600
	have, err := s.host.Files().Read(ctx, f.Path)
	if err == nil && bytes.Equal(have, f.Data) {
		return files, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return append(files, f), nil
}

func (p *Nodes) installProgram(ctx context.Context, s *site, n *node) error {
	arch, err := s.host.Arch(ctx)
	if err != nil {
		return err
	}
	file, digest, err := p.program(arch)
	if err != nil {
		return err
	}
	s.arch = arch
	at := programFile(digest)
	have, err := s.host.Files().List(ctx, BinDir)
	if err != nil {
		return err
	}
	present := false
	for _, name := range have {
		present = present || name == path.Base(at)
	}
	if !present {
		if err := s.host.Files().Copy(ctx, file, digest, at, 0o755); err != nil {
			return err
		}
	}
	n.Program = digest
	target := path.Join(s.host.Root(), at)
	had, err := s.host.Files().ReadLink(ctx, s.path(AgentLink))
	if err == nil && had == target {
		return nil
	}
	if err == nil && p.hosts.KeepProgram {
		if err := s.host.Files().Link(ctx, had, s.path(PreviousLink)); err != nil {
			return err
		}
	}
	return s.host.Files().Link(ctx, target, s.path(AgentLink))
}

// cert mints a certificate unless a good one is there, to be written. The key
// goes first: a crash between the two leaves a pair that doesn't match, which
// certHealth finds.
func (p *Nodes) cert(ctx context.Context, s *site, identity *pki.Identity, n *node, files []File) ([]File, error) {
	cert, err := s.host.Files().Read(ctx, s.path(NodeCertFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := s.host.Files().Read(ctx, s.path(NodeKeyFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if certHealth(cert, key, identity, s.id, time.Now()) == "" {
		return files, nil
	}
	c, err := identity.NodeCert(s.id, n.Name, p.cfg.CertLife)
	if err != nil {
		return nil, err
	}
	return append(files, File{s.path(NodeKeyFile), c.Key, 0o600}, File{s.path(NodeCertFile), c.Cert, 0o600}), nil
}

// certHealth says what is wrong with a node's certificate; "": nothing.
func certHealth(cert, key []byte, identity *pki.Identity, nodeID string, now time.Time) string {
	if len(cert) == 0 || len(key) == 0 {
		return HealthCert + "missing"
	}
	peer, err := pki.ParseCert(cert)
	if err != nil {
		return HealthCert + "damaged"
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return HealthCert + "and key don't match"
	}
	switch left := peer.NotAfter.Sub(now); {
	case peer.ClusterID != identity.ID || peer.ID != nodeID || peer.Role != pki.RoleNode:
		return HealthCert + "of another node or cluster"
	case left <= 0:
		return HealthCert + "expired"
	case pki.RenewNeeded(peer.NotBefore, peer.NotAfter, now):
		days := int(math.Ceil(left.Hours() / 24))
		if days == 1 {
			return HealthCert + "expires in 1 day"
		}
		return fmt.Sprintf("%sexpires in %d days", HealthCert, days)
	}
	return ""
}

// loopback is where nodes without an address are, unless their host chooses.
const loopback = "127.0.0.1"

// endpoint is where the node listens: as defined, as it has been, or on a free
// port of the provider's range that no node of this directory has.
func (p *Nodes) endpoint(ctx context.Context, s *site, n node) (string, error) {
	host, port, err := listenAddress(n)
	if err != nil {
		return "", err
	}
	if host == "" {
		if host, err = p.chosen(ctx, s, n); err != nil {
			return "", err
		}
	} else if host, err = s.host.Address(ctx, s.dir, host, -1); err != nil {
		return "", err
	}
	if port != 0 {
		return joinPort(host, port), nil
	}
	if s.conf != nil && hostOf(s.conf.Address) == host {
		return s.conf.Address, nil
	}
	if n.Endpoint != "" && hostOf(n.Endpoint) == host {
		return n.Endpoint, nil
	}
	taken, err := p.taken(ctx, s)
	if err != nil {
		return "", err
	}
	span := p.hosts.LastPort - p.hosts.FirstPort + 1
	h := fnv.New32a()
	h.Write([]byte(s.id))
	first := int(h.Sum32() % uint32(span))
	for i := range span {
		e := joinPort(host, p.hosts.FirstPort+(first+i)%span)
		if taken[e] {
			continue
		}
		free, err := s.host.FreePort(ctx, e)
		if err != nil {
			return "", err
		}
		if free {
			return e, nil
		}
	}
	return "", fmt.Errorf("no port from %d to %d is free on %s; give the node an address with a port", p.hosts.FirstPort, p.hosts.LastPort, host)
}

// chosen is the address of a node whose definition gives none: the one that it
// had, or the host's choice.
func (p *Nodes) chosen(ctx context.Context, s *site, n node) (string, error) {
	if !p.hosts.Chooses {
		return loopback, nil
	}
	had := hostOf(n.Endpoint)
	if had != "" && p.hosts.Check != nil && p.hosts.Check(n.Name, had) != nil {
		had = "" // of another network
	}
	return s.host.Address(ctx, s.dir, had, slices.Index(p.env.Order, n.Addr))
}

// taken are the endpoints of the other nodes, up or not.
func (p *Nodes) taken(ctx context.Context, s *site) (map[string]bool, error) {
	taken := map[string]bool{}
	for _, e := range p.env.Nodes.All() {
		taken[e.Endpoint] = e.NodeID != s.id
	}
	names, err := s.host.Files().List(ctx, NodesDir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if conf, err := readAgentConfig(ctx, s.host, path.Join(NodesDir, name)); err == nil && conf != nil && conf.NodeID != s.id {
			taken[conf.Address] = true
		}
	}
	return taken, nil
}

// prune removes programs that no node's link names any more.
func (p *Nodes) prune(ctx context.Context, host Host) error {
	names, err := host.Files().List(ctx, NodesDir)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, name := range names {
		for _, link := range []string{AgentLink, PreviousLink} {
			if target, err := host.Files().ReadLink(ctx, path.Join(NodesDir, name, link)); err == nil {
				used[path.Base(target)] = true
			} else if !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	programs, err := host.Files().List(ctx, BinDir)
	if err != nil {
		return err
	}
	for _, name := range programs {
		if strings.HasPrefix(name, "clusterplan-") && !used[name] {
			if err := host.Files().Remove(ctx, path.Join(BinDir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
