package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Apply does one phase of a node's action.
func (p *Nodes) Apply(ctx context.Context, req ApplyRequest) (ApplyResponse, error) {
	v := req.Planned
	if (v == cty.NilVal || v.IsNull()) && req.Prior != nil {
		v = req.Prior.Value
	}
	n, err := decodeNode(v, req.Prior)
	if err != nil {
		return ApplyResponse{}, err
	}
	n.Addr = req.Addr
	if req.Progress == nil {
		req.Progress = func(string) {}
	}
	host, err := p.host(n)
	if err != nil {
		return ApplyResponse{}, fmt.Errorf("%s: %w", req.Phase, err)
	}
	if req.Phase == PhaseInstall || req.Phase == PhaseStart {
		if err := p.unheard(host); err != nil {
			return ApplyResponse{}, fmt.Errorf("%s: %w", req.Phase, err)
		}
	}
	p.env.Nodes.said(req.ID, "") // what it said of itself may be true no longer
	if req.Phase == PhaseInstall {
		host.Mutex().Lock() // the port and the programs in use are looked at and written as one
		defer host.Mutex().Unlock()
	}
	s, err := p.joining(host, req), error(nil)
	if s == nil {
		if s, err = p.locate(ctx, host, req.ID, n, req.Prior); err == nil {
			p.reached(host, nil) // what a look was told is past: a node that is stopped now is started again
		}
	}
	if err != nil {
		if errors.Is(err, ErrUnreachable) && slices.Contains([]string{PhaseDrain, PhaseDemote, PhaseUpdate, PhaseLeave}, req.Phase) {
			// These ask the cluster alone, which can let a node go, or take its vote,
			// whose host is dead.
			s, err = &site{id: req.ID, dir: path.Join(NodesDir, privateDir(req.Prior))}, nil
		} else if errors.Is(err, errOtherNode) && req.Phase != PhaseInstall && req.Phase != PhaseStart {
			s, err = &site{host: s.host, id: req.ID, dir: s.dir}, nil // nothing of ours is there
			if req.Phase == PhaseStop || req.Phase == PhaseRemove {
				p.env.Nodes.Remove(req.ID)
				return ApplyResponse{}, nil
			}
		} else {
			return ApplyResponse{}, fmt.Errorf("%s: %w", req.Phase, err)
		}
	}
	identity := p.identity()
	if identity == nil && req.Phase != PhaseStop && req.Phase != PhaseRemove {
		return ApplyResponse{}, fmt.Errorf("%s %s: the state does not hold the cluster's identity", req.Phase, n.Name)
	}
	if s.conf != nil && s.conf.Address != "" {
		n.Endpoint = s.conf.Address
	}
	// What is read of the host stands against what the definition aims at.
	n.Program, n.ServerID = "", 0
	if prior, err := decodeNode(priorValue(req.Prior), nil); err == nil {
		n.Program, n.ServerID = prior.Program, prior.ServerID
		if s.host == nil { // where it listened when it was last reached
			n.Endpoint = prior.Endpoint
		}
	}

	if err := p.phase(ctx, req, s, identity, &n); err != nil {
		return ApplyResponse{}, err
	}
	if req.Phase == PhaseRemove {
		return ApplyResponse{}, nil
	}
	own := NodePrivate{Dir: path.Base(s.dir), Place: private(req.Prior).Place, Arch: cmp.Or(s.arch, private(req.Prior).Arch)}
	if req.Phase == PhaseInstall || req.Prior == nil {
		own.Place = p.hosts.Place
	}
	o, err := object(req.ID, own, v, n)
	return ApplyResponse{Object: o}, err
}

// joining is where a node is whose phase only the cluster and its agent have a part
// in, which proves by its certificate that it is the node: no look at the host is
// needed. nil: some other phase, or nobody knows where it was put.
func (p *Nodes) joining(host Host, req ApplyRequest) *site {
	dir := privateDir(req.Prior)
	prior, err := decodeNode(priorValue(req.Prior), nil)
	if err != nil || dir == "" || prior.Endpoint == "" || req.Phase != PhaseJoin && req.Phase != PhasePromote {
		return nil
	}
	return &site{host: host, id: req.ID, dir: path.Join(NodesDir, dir), conf: &AgentConfig{NodeID: req.ID, Address: prior.Endpoint}}
}

func priorValue(o *Object) cty.Value {
	if o == nil {
		return cty.NilVal
	}
	return o.Value
}

func (p *Nodes) phase(ctx context.Context, req ApplyRequest, s *site, identity *pki.Identity, n *node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch req.Phase {
	case PhaseInstall:
		return p.doInstall(ctx, s, identity, n)
	case PhaseStart:
		return p.doStart(ctx, s, identity, n)
	case PhaseStop:
		err := p.mayEnd(ctx, req, s, n)
		if err == nil {
			err = p.doStop(ctx, s, identity, n)
		}
		if err != nil {
			return fmt.Errorf("stop node %s: %w", n.Name, err)
		}
		return nil
	case PhaseRemove:
		return p.doRemove(ctx, s, n)
	}
	if p.env.Cluster == nil {
		return fmt.Errorf("%s %s: no provider of this run talks to the cluster", req.Phase, n.Name)
	}
	var err error
	switch c := p.env.Cluster; req.Phase {
	case PhaseJoin:
		err = p.doJoin(ctx, req, s, identity, n)
	case PhasePromote:
		req.Progress("catching up")
		err = c.Promote(ctx, s.id)
	case PhaseDemote, PhaseUpdate:
		err = c.Update(ctx, p.member(s, n, 0, req.Beside))
	case PhaseDrain:
		req.Progress("groups leave")
		err = c.Drain(ctx, s.id, "apply works on "+req.Addr.String())
	case PhaseResume:
		if err = p.takesPart(ctx, s, identity, n); err == nil {
			err = c.Resume(ctx, s.id)
		}
	case PhaseLeave:
		err = c.Leave(ctx, s.id)
	default:
		return fmt.Errorf("a node has no phase %q", req.Phase)
	}
	if err != nil {
		return fmt.Errorf("%s node %s: %w", req.Phase, n.Name, err)
	}
	return nil
}

// member is the node as the cluster is to know it.
func (p *Nodes) member(s *site, n *node, serverID uint64, beside bool) Member {
	m := Member{Spec: n.Node, ServerID: serverID, Endpoint: n.Endpoint, Version: p.env.Version}
	m.Spec.ID = s.id
	m.Spec.Address = n.Endpoint
	m.Spec.SSH = spec.SSH{} // how it is reached from here is no business of the cluster's
	if beside {
		m.Spec.Name = SuccessorName(n.Name, s.id)
	}
	return m
}

// doJoin has the cluster take the node in, with the data directory that its
// agent uses now. One that the cluster has let go starts over with an empty one.
func (p *Nodes) doJoin(ctx context.Context, req ApplyRequest, s *site, identity *pki.Identity, n *node) error {
	self, err := p.self(ctx, s, n.Endpoint, identity, readWait)
	if err != nil {
		return fmt.Errorf("%w: its agent does not answer: %w", ErrUnreachable, err)
	}
	if self.Membership == "removed" {
		if s, err = p.locate(ctx, s.host, s.id, *n, req.Prior); err != nil { // nothing is removed that was not looked at
			return err
		}
		if err := p.doStop(ctx, s, identity, n); err != nil {
			return err
		}
		if err := s.host.Files().Remove(ctx, s.path(DataDirName)); err != nil {
			return err
		}
		if err := p.doStart(ctx, s, identity, n); err != nil {
			return err
		}
		if self, err = p.self(ctx, s, n.Endpoint, identity, readWait); err != nil {
			return err
		}
	}
	n.ServerID = self.ServerID
	return p.env.Cluster.Join(ctx, p.member(s, n, self.ServerID, req.Beside))
}

func (p *Nodes) doRemove(ctx context.Context, s *site, n *node) error {
	if pid, err := s.host.Alive(ctx, s.dir); err != nil {
		return err
	} else if pid != 0 {
		return fmt.Errorf("remove %s: its agent still runs (pid %d)", s.abs(""), pid)
	}
	s.host.Mutex().Lock()
	defer s.host.Mutex().Unlock()
	// The directory last: while it is there, the next run knows that the node is.
	if err := s.host.Release(ctx, s.dir); err != nil {
		return fmt.Errorf("remove node %s: %w", n.Name, err)
	}
	if s.conf != nil || privateDirIs(s) {
		if err := s.host.Files().Remove(ctx, s.dir); err != nil {
			return fmt.Errorf("remove node %s: %w", n.Name, err)
		}
	}
	p.env.Nodes.Remove(s.id)
	return p.prune(ctx, s.host)
}

// mayEnd refuses to end an agent whose data directory was removed without the plan's
// knowing: it may have the only copy of the database, in its memory.
func (p *Nodes) mayEnd(ctx context.Context, req ApplyRequest, s *site, n *node) error {
	if !req.ComesBack || n.ServerID == 0 {
		return nil
	}
	q, ok := s.host.(Prober) // Files may go by an earlier look
	if !ok {
		return nil
	}
	data, err := q.Probe(ctx, "cd "+shell.Quote(s.abs(DataDirName))+" 2>/dev/null && ls -A\n:")
	if err != nil || len(data) > 0 {
		return err
	}
	if pid, err := s.host.Alive(ctx, s.dir); err != nil || pid == 0 {
		return err
	}
	return fmt.Errorf("%s is gone, which the plan did not know: what its agent knows of the cluster is in its memory alone, and would end with it. Apply again, not with --refresh=false: that sees whether others have the database too", s.abs(DataDirName))
}

// doStop ends the agent, and with it what it runs, which nothing cuts off that keeps
// to its stop_timeout. One that doesn't answer can't tell how long that is: it has
// StopGrace. Most have no lease any more, so that what they ran has ended; one whose
// certificate has expired may have.
func (p *Nodes) doStop(ctx context.Context, s *site, identity *pki.Identity, n *node) error {
	grace := p.cfg.StopGrace
	if identity != nil && n.Endpoint != "" {
		if self, err := p.self(ctx, s, n.Endpoint, identity, readWait); err == nil && self.StopBound > 0 {
			grace = max(grace, self.StopBound.D()+stopMargin)
		}
	}
	return s.host.Stop(ctx, s.dir, grace)
}

// stopMargin is what an agent has to end beside the time of its groups' stops: 5 s
// more than it gives itself.
const stopMargin = 15 * time.Second

// privateDirIs: a directory that an earlier remove left half gone has no
// agent.json any more, but is still the node's.
func privateDirIs(s *site) bool { return s.dir != NodesDir && s.dir != "" }

// identity is the cluster's, nil before there is one.
func (p *Nodes) identity() *pki.Identity {
	if p.env.Identity == nil {
		return nil
	}
	return p.env.Identity()
}

func joinPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func hostOf(endpoint string) string {
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return endpoint
	}
	return host
}

// sameSettings compares what the cluster keeps of a node with what it should.
func sameSettings(a, b spec.Node) bool {
	return a.Name == b.Name && a.Zone == b.Zone && a.Spare == b.Spare && a.Votes == b.Votes && a.Role == b.Role &&
		a.Watchdog == b.Watchdog && a.WatchdogTimeout == b.WatchdogTimeout && a.Reset == b.Reset &&
		maps.Equal(a.Capacity, b.Capacity) && maps.Equal(a.Labels, b.Labels)
}
