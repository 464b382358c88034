package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"

	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// protoKeys is the ALPN protocol by which a node that was away while the frame
// key was rotated gets the keys: it connects, is sent the ring as JSON, and the
// stream ends. Only the cluster's nodes get it: the caller's certificate is a
// node's, of a node that the state names.
const protoKeys = "clusterplan-keys/1"

const (
	keysWithin = 5 * time.Second
	keysAgain  = time.Second
	maxRing    = 64 << 10
)

// setKeys takes a ring over, unless a newer one is in use. Frames from now on
// are sealed by it.
func (u *udp) setKeys(ring *confdb.Keyring) {
	if ring == nil || u.ring != nil && ring.Since <= u.ring.Since {
		return
	}
	u.ring = ring
	list := u.keys()
	u.mu.Lock()
	err := u.open.SetKeys(list)
	u.has = ring.Newest()
	u.uses = max(u.uses, ring.Send)
	uses := u.uses
	u.mu.Unlock()
	if err != nil {
		u.n.log.Error("the cluster's frame keys can't be used", "err", err)
		return
	}
	u.use(uses)
}

// keys are those that frames are opened with.
func (u *udp) keys() []heartbeat.Key {
	var list []heartbeat.Key
	if u.ring == nil || u.ring.Oldest == 0 {
		list = append(list, heartbeat.Key{Bytes: u.n.files.key})
	}
	if u.ring != nil {
		for _, k := range u.ring.Keys {
			list = append(list, heartbeat.Key{Generation: k.Generation, Bytes: k.Key})
		}
	}
	return list
}

func (u *udp) use(generation uint32) {
	for _, k := range u.keys() {
		if k.Generation != generation {
			continue
		}
		if err := u.seal.Use(k); err != nil {
			u.n.log.Error("the cluster's frame key can't be used", "generation", generation, "err", err)
		}
	}
}

// askKeys gets the ring from the node that a frame with an unknown key came
// from: TLS tells whether it is one.
func (n *Node) askKeys(from netip.AddrPort) {
	now := time.Now().UnixNano()
	if last := n.askedKeys.Load(); now-last < int64(keysAgain) || !n.askedKeys.CompareAndSwap(last, now) {
		return
	}
	go func() {
		ring, err := n.fetchKeys(from)
		if err != nil {
			n.log.Warn("the cluster's new frame key was not to be had; it is asked for again", "from", from, "err", err)
			return
		}
		n.give(job{fn: func() {
			n.log.Info("the cluster's frame keys were changed while this node was away", "generation", ring.Newest(), "from", from)
			n.udp.setKeys(ring)
		}})
	}()
}

func (n *Node) fetchKeys(from netip.AddrPort) (*confdb.Keyring, error) {
	conf, err := pki.NodesClientConfig(n.files.ca, n.facts.ClusterID, n.files.cert, protoKeys)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), keysWithin)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: n.cert.present(conf)}
	conn, err := d.DialContext(ctx, "tcp", from.String())
	if err != nil {
		return nil, pki.Explain(err)
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	peer, err := pki.PeerOfConn(state)
	switch {
	case err != nil:
		return nil, err
	case peer.Role != pki.RoleNode:
		return nil, fmt.Errorf("%s is no node", peer.Name)
	case state.NegotiatedProtocol != protoKeys:
		return nil, fmt.Errorf("node %s hands out no keys: its agent is older", peer.Name)
	}
	if err := n.expired(ctx, peer); err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(keysWithin))
	data, err := io.ReadAll(io.LimitReader(conn, maxRing))
	if err != nil {
		return nil, err
	}
	ring := &confdb.Keyring{}
	if err := json.Unmarshal(data, ring); err != nil {
		return nil, fmt.Errorf("node %s: %w", peer.Name, err)
	}
	if len(ring.Keys) == 0 {
		return nil, fmt.Errorf("node %s has no other keys", peer.Name)
	}
	return ring, nil
}

// giveKeys answers askKeys.
func (n *Node) giveKeys(ctx context.Context, conn *tls.Conn) error {
	defer conn.Close()
	peer, err := pki.PeerOfConn(conn.ConnectionState())
	if err != nil {
		return err
	}
	var ring *confdb.Keyring
	known := false
	if err := n.Read(ctx, func(s *confdb.State, _ member.Status) {
		ring = s.Keys // never changed in place
		_, known = s.Nodes[peer.ID]
	}); err != nil {
		return err
	}
	if peer.Role != pki.RoleNode || !known {
		return fmt.Errorf("%s is no node of the cluster (any more) and gets no frame key", peer.Name)
	}
	if ring == nil {
		ring = &confdb.Keyring{}
	}
	data, err := json.Marshal(ring)
	if err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(keysWithin))
	_, err = conn.Write(data)
	return err
}
