package providers

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Directory is where a run's nodes can be reached: filled from the state
// before anything is read (AddStored), kept up by the node lifecycle as nodes
// are read, installed and started, and asked by the provider that talks to the
// cluster. Safe for concurrent use; the zero value is empty and ready.
type Directory struct {
	mu    sync.Mutex
	nodes map[string]Entry
	via   map[string]DialFunc
	heard map[string]heard // by node id: when all were asked last
}

// heard is what a node said when all were asked.
type heard struct {
	self     *Self // nil: it did not answer, or what it said has been used
	endpoint string
	at       time.Time
	silent   bool
}

// lately is how old what a node said of itself may be in a look at it.
const lately = 5 * time.Second

// DialFunc connects to host:port.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Via has the nodes of a provider dialled by dial.
func (d *Directory) Via(provider string, dial DialFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.via == nil {
		d.via = map[string]DialFunc{}
	}
	d.via[provider] = dial
}

// Dial connects to a node's endpoint in the way of its provider; others, and
// nodes of providers without a way of their own, by this machine's network.
func (d *Directory) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	var dial DialFunc
	for _, e := range d.nodes {
		if e.Endpoint == address && dial == nil {
			dial = d.via[e.Spec.Provider]
		}
	}
	d.mu.Unlock()
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	return dial(ctx, network, address)
}

// Entry is one node of the directory.
type Entry struct {
	NodeID   string
	Name     string
	Endpoint string // host:port
	// ServerID is of the data directory that last answered; 0: the node never
	// answered. A node that did may hold the cluster's database.
	ServerID uint64
	Spec     spec.Node // settings, as far as they are known
}

// Put adds a node or replaces what is known of it; fields without a value
// leave what was known.
func (d *Directory) Put(e Entry) {
	if e.NodeID == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.nodes == nil {
		d.nodes = map[string]Entry{}
	}
	old := d.nodes[e.NodeID]
	if e.Spec.Name == "" {
		e.Spec = old.Spec
	}
	d.nodes[e.NodeID] = Entry{
		NodeID:   e.NodeID,
		Name:     cmp.Or(e.Name, old.Name),
		Endpoint: cmp.Or(e.Endpoint, old.Endpoint),
		ServerID: cmp.Or(e.ServerID, old.ServerID),
		Spec:     e.Spec,
	}
}

// AddStored adds a node as the state holds it: its attributes, JSON. A node
// without an endpoint is left out.
func (d *Directory) AddStored(nodeID string, attributes json.RawMessage) error {
	var attrs node
	if err := json.Unmarshal(attributes, &attrs); err != nil {
		return fmt.Errorf("read node %s of the state: %w", nodeID, err)
	}
	if attrs.Endpoint != "" {
		d.Put(Entry{NodeID: nodeID, Name: attrs.Name, Endpoint: attrs.Endpoint, ServerID: attrs.ServerID, Spec: attrs.Node})
	}
	return nil
}

// Heard notes what a node said of itself at an endpoint when all were asked; nil:
// it did not answer.
func (d *Directory) Heard(nodeID, endpoint string, self *Self) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.heard == nil {
		d.heard = map[string]heard{}
	}
	d.heard[nodeID] = heard{self, endpoint, time.Now(), self == nil}
}

// said is what a node has just said of itself, once: who looks at it then need not
// ask it again. Whoever does something to it takes that away first.
func (d *Directory) said(nodeID, endpoint string) (Self, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.heard[nodeID]
	if !ok || h.self == nil {
		return Self{}, false
	}
	self := *h.self
	h.self = nil
	d.heard[nodeID] = h
	return self, h.endpoint == endpoint && self.NodeID == nodeID && time.Since(h.at) < lately
}

// Silent tells whether a node did not answer when all were asked last: who waits
// for it once more need not wait long.
func (d *Directory) Silent(nodeID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.heard[nodeID].silent
}

// Remove forgets a node that is gone.
func (d *Directory) Remove(nodeID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.nodes, nodeID)
}

// All are the nodes with an endpoint, by name.
func (d *Directory) All() []Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Entry
	for _, e := range d.nodes {
		if e.Endpoint != "" {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.NodeID, b.NodeID))
	})
	return out
}
