package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// Self is what the agent says of the node, and of the group whose socket asks.
type Self struct {
	ClusterID  string `json:"cluster_id"`
	NodeID     string `json:"node_id"`
	Node       string `json:"name"`
	Membership string `json:"membership"` // waiting | learner | voter | removed | unread (a member that has not read yet of what)
	Leader     string `json:"leader"`     // node name, "": unknown
	Quorum     bool   `json:"quorum"`
	Revision   uint64 `json:"revision"`
	Version    string `json:"version"`
	Group      string `json:"group"` // by a group's socket: its name
}

// Self asks the agent who and where it is.
func (c *Client) Self(ctx context.Context) (s Self, err error) {
	err = c.get(ctx, "/v1/self", &s)
	return s, err
}

// Owner says who runs a group.
type Owner struct {
	Group   string    `json:"group"`   // name
	Owner   string    `json:"owner"`   // node name, "": nobody
	Epoch   uint64    `json:"epoch"`   // grows with each change of the owner
	Since   time.Time `json:"since"`   // when it got it
	State   string    `json:"state"`   // online, pending, ...
	Leaving bool      `json:"leaving"` // its owner is to stop it: a move, an offline, its deletion
	Here    bool      `json:"here"`    // the node that answers owns it
	Lease   bool      `json:"lease"`   // and holds a lease now
}

func (c *Client) ownerPath(group string) string {
	if group == "" {
		group = c.conf.Group
	}
	return "/v1/groups/" + segment(group) + "/owner"
}

// Owner tells who runs a group, by name ("": the caller's own), as the node's
// own copy has it.
func (c *Client) Owner(ctx context.Context, group string) (o Owner, err error) {
	err = c.get(ctx, c.ownerPath(group), &o)
	return o, err
}

// WatchOwner calls fn with who runs a group now, and again whenever that
// changes, until ctx ends.
func (c *Client) WatchOwner(ctx context.Context, group string, fn func(Owner)) error {
	return c.follow(ctx, c.ownerPath(group), url.Values{}, 0, func(data []byte) error {
		var o Owner
		if err := json.Unmarshal(data, &o); err != nil {
			return fmt.Errorf("read an owner: %w", err)
		}
		fn(o)
		return nil
	})
}

// Member is a node of the cluster.
type Member struct {
	Name    string `json:"name"`
	State   string `json:"state"` // up | down | paused | joining | unknown
	Address string `json:"address"`
	Zone    string `json:"zone"`
	Role    string `json:"role"`
	Votes   int    `json:"votes"`
}

// Members are the cluster's nodes, as the node's own copy has them.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var s struct {
		Nodes []Member `json:"nodes"`
	}
	err := c.get(ctx, "/v1/status", &s)
	return s.Nodes, err
}

// Guard watches over the caller's ownership of its group.
type Guard struct {
	c     *Client
	epoch uint64
	lost  chan struct{}
	end   context.CancelFunc

	mu   sync.Mutex
	why  error
	done bool
}

// Guard begins to watch over the ownership that the caller was started under
// (Config.Epoch). Close it when it is no longer needed.
func (c *Client) Guard(ctx context.Context) (*Guard, error) {
	if c.conf.Epoch == 0 || c.conf.Group == "" {
		return nil, errors.New("no epoch or no group is known: CLUSTERPLAN_EPOCH and CLUSTERPLAN_GROUP are set for resources only")
	}
	ctx, cancel := context.WithCancel(ctx)
	g := &Guard{c: c, epoch: c.conf.Epoch, lost: make(chan struct{}), end: cancel}
	if err := g.Check(ctx); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		err := c.WatchOwner(ctx, "", func(o Owner) {
			if err := g.judge(o); err != nil {
				g.lose(err)
			}
		})
		if ctx.Err() == nil {
			g.lose(err)
		}
	}()
	return g, nil
}

// Close ends the watch; it doesn't close Lost.
func (g *Guard) Close() {
	g.mu.Lock()
	g.done = true
	g.mu.Unlock()
	g.end()
}

// Epoch is the epoch that is watched over: what Space.Fenced and storage that
// can tell epochs apart want.
func (g *Guard) Epoch() uint64 { return g.epoch }

// Lost is closed when the ownership ends, or is to: another epoch has begun, or
// the group is to stop here. Err says why. A node that loses its lease stops the
// program without a word.
func (g *Guard) Lost() <-chan struct{} { return g.lost }

// Err says why Lost is closed, nil while it is not.
func (g *Guard) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why
}

// Check asks the agent now: nil while the node owns the group under the guarded
// epoch, is to keep it, and holds its lease. What follows may still come too late:
// only a fenced write can't.
func (g *Guard) Check(ctx context.Context) error {
	o, err := g.c.Owner(ctx, "")
	if err != nil {
		return err
	}
	if err := g.judge(o); err != nil {
		return err
	}
	if !o.Lease {
		return fmt.Errorf("%w: the node holds no lease now", ErrFenced)
	}
	return nil
}

func (g *Guard) judge(o Owner) error {
	switch {
	case o.Epoch < g.epoch:
		return nil // a copy that is behind: the epoch was committed before this program was started
	case o.Epoch > g.epoch:
		return fmt.Errorf("%w: group %s is at epoch %d, not %d", ErrFenced, o.Group, o.Epoch, g.epoch)
	case o.Leaving:
		return fmt.Errorf("%w: group %s is to stop here", ErrFenced, o.Group)
	case !o.Here:
		return fmt.Errorf("%w: group %s belongs to %q", ErrFenced, o.Group, o.Owner)
	}
	return nil
}

func (g *Guard) lose(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.why == nil && !g.done {
		g.why = why
		close(g.lost)
	}
}

// Checkpoint is what the cluster keeps of a resource's files.
type Checkpoint struct {
	Resource string           `json:"resource"`
	Epoch    uint64           `json:"epoch"` // of the owner who made it, or restored it last
	Node     string           `json:"node"`  // that owner's name
	Revision uint64           `json:"revision"`
	Time     time.Time        `json:"time"`
	Size     int64            `json:"size"`
	Files    []CheckpointFile `json:"files"`
}

// CheckpointFile is one file of a checkpoint; a command's output has no path.
type CheckpointFile struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
	Size int64  `json:"size"`
}

// Checkpoints are those of a group's resources, by the group's name ("": the
// caller's own), as the node's own copy has them. What is kept, the resource's
// checkpoint block says; the cluster looks for changes every looks_alive interval
// and when the resource has stopped.
func (c *Client) Checkpoints(ctx context.Context, group string) ([]Checkpoint, error) {
	if group == "" {
		group = c.conf.Group
	}
	var out struct {
		Checkpoints []Checkpoint `json:"checkpoints"`
	}
	err := c.get(ctx, "/v1/checkpoints/"+segment(group), &out)
	return out.Checkpoints, err
}
