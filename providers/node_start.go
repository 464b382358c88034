package providers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Self is what the lifecycle reads of an agent's GET /v1/self: a part of
// runtime/api/client's Self, which this room may not import.
type Self struct {
	ClusterID    string        `json:"cluster_id"`
	NodeID       string        `json:"node_id"`
	ServerID     uint64        `json:"server_id,string"`
	Membership   string        `json:"membership"`
	Quorum       bool          `json:"quorum"` // of this life of the agent: a leader has given it a lease, or it leads
	Version      string        `json:"version"`
	Program      string        `json:"program"`
	CertNotAfter time.Time     `json:"cert_not_after"`
	StopBound    spec.Duration `json:"stop_bound,omitempty"` // how long what runs there may take to stop in order
}

// self asks the agent at endpoint who it is, over mutual TLS.
func (p *Nodes) self(ctx context.Context, s *site, endpoint string, identity *pki.Identity, wait time.Duration) (Self, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	cert, err := identity.ClientCert("clusterplan", "reader", pki.ClientLife)
	if err != nil {
		return Self{}, err
	}
	pair, err := cert.TLS()
	if err != nil {
		return Self{}, err
	}
	conf, err := pki.ClientConfig(identity.CACert, identity.ID, pair, s.id, "http/1.1")
	if err != nil {
		return Self{}, err
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   conf,
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.host.Dial(ctx, network, endpoint)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+pki.ServerName(s.id)+"/v1/self", nil)
	if err != nil {
		return Self{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return Self{}, pki.Explain(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return Self{}, err
	}
	if res.StatusCode != http.StatusOK {
		return Self{}, fmt.Errorf("GET /v1/self at %s: %s: %.200s", endpoint, res.Status, body)
	}
	var self Self
	if err := json.Unmarshal(body, &self); err != nil {
		return Self{}, fmt.Errorf("GET /v1/self at %s: %w", endpoint, err)
	}
	if self.NodeID != s.id || self.ClusterID != identity.ID {
		return Self{}, fmt.Errorf("at %s answers node %s of cluster %s, wanted %s of %s", endpoint, self.NodeID, self.ClusterID, s.id, identity.ID)
	}
	return self, nil
}

// Waiting for an agent: how often its API is tried, and then its process looked for.
const (
	startPoll    = 50 * time.Millisecond // and then less and less often, for many start at once
	lastPoll     = 400 * time.Millisecond
	startAttempt = 2 * time.Second
	startMisses  = 3 // looks in a row that find no process, before it counts as ended
)

// doStart has the agent run, and waits until its API answers as this node.
func (p *Nodes) doStart(ctx context.Context, s *site, identity *pki.Identity, n *node) error {
	fail := func(err error) error { return fmt.Errorf("start node %s: %w", n.Name, err) }
	if s.conf == nil {
		return fail(fmt.Errorf("%s is not there; apply installs it first", s.abs(AgentConfigFile)))
	}
	pid, err := s.host.Alive(ctx, s.dir)
	if err != nil {
		return fail(err)
	}
	if pid == 0 {
		free, err := s.host.FreePort(ctx, s.conf.Address)
		if err != nil {
			return fail(err)
		}
		if !free {
			return fail(fmt.Errorf("its port is taken: something else listens on %s (TCP or UDP); stop that, or give the node another address", s.conf.Address))
		}
		if err := s.host.Start(ctx, s.dir); errors.Is(err, ErrUnreachable) {
			return fail(err)
		} else if err != nil {
			return fail(fmt.Errorf("its agent can't be executed: %w; see that the program that %s names may be executed there (its mode, and how its file system is mounted), and apply again", err, s.abs(AgentLink)))
		}
	}
	deadline := time.Now().Add(p.cfg.StartWait)
	for gone, pause := 0, startPoll; ; pause = min(pause*3/2, lastPoll) {
		self, err := p.self(ctx, s, s.conf.Address, identity, startAttempt)
		if err == nil {
			n.ServerID = self.ServerID
			if self.Program != "" {
				n.Program = self.Program
			}
			p.env.Nodes.Put(Entry{NodeID: s.id, Name: n.Name, Endpoint: s.conf.Address, ServerID: self.ServerID, Spec: n.Node})
			return nil
		}
		if ctx.Err() != nil {
			return fail(ctx.Err())
		}
		late := time.Now().After(deadline)
		if late || pause > startPoll { // no sooner than it can have answered
			var aliveErr error
			pid, aliveErr = s.host.Alive(ctx, s.dir)
			switch {
			case aliveErr != nil:
				return fail(aliveErr)
			case pid != 0:
				gone = 0
			case gone < startMisses && !late: // one look may fall between two of a process's names
				gone++
			default:
				return fail(fmt.Errorf("its agent ended at once%s", p.tail(ctx, s)))
			}
		}
		if late {
			return fail(fmt.Errorf("its agent (pid %d) does not answer at %s within %s: %w%s", pid, s.conf.Address, p.cfg.StartWait, err, p.tail(ctx, s)))
		}
		select {
		case <-ctx.Done():
			return fail(ctx.Err())
		case <-time.After(pause):
		}
	}
}

// takesPart waits until the agent that runs now, not one before it, takes part
// in the cluster. What the others say of the node proves nothing for a while:
// they may still go by what they heard of its former life, and the next node
// would be stopped while this one can't stand in for it.
func (p *Nodes) takesPart(ctx context.Context, s *site, identity *pki.Identity, n *node) error {
	deadline := time.Now().Add(p.cfg.PartWait)
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	for {
		self, err := p.self(ctx, s, n.Endpoint, identity, startAttempt)
		switch {
		case err == nil && self.Quorum:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			err = errors.New("it has no lease from a leader")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("its agent runs, but takes no part in the cluster within %s: %w; the node stays drained and no further node is stopped: see its log %s, then apply again", p.cfg.PartWait, err, s.abs(AgentLog))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}

// tail is the end of the agent's log, for an error's text.
func (p *Nodes) tail(ctx context.Context, s *site) string {
	data, err := s.host.Files().Read(ctx, s.path(AgentLog))
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(bytes.TrimSpace(data)) == 0) {
		return "; its log " + s.abs(AgentLog) + " is empty"
	}
	if err != nil {
		return "; its log can't be read: " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	lines = lines[max(0, len(lines)-5):]
	return "; the last lines of its log " + s.abs(AgentLog) + ":\n  " + strings.Join(lines, "\n  ")
}
