// Package heartbeat is the stream of UDP frames under Raft and leases: what a
// frame says, its bytes, and the seal (AEAD under the cluster's key, proof
// against replay) that lets it be believed. Two clusters on one network never
// mix: the cluster's id and key differ.
//
// Frame and its codec are pure; Seal and Open hold keys and counters only; the
// socket is runtime/agent's.
package heartbeat

import "time"

// Frame is one datagram between two nodes. Every field is of the sender.
type Frame struct {
	From        uint64 // server id
	To          uint64 // server id; 0: not known yet
	Incarnation uint64 // random at the agent's start
	Seq         uint64 // 1, 2, 3, ... within From's incarnation, over all peers
	NodeID      string

	Term   uint64 // Raft's current term, read after receipt of what Ack names
	Leader uint64 // server id that the sender takes for the leader of Term, 0: none

	// Unsaved says that Term is not on the sender's disk yet: after a crash it may
	// be back in an older one, and answer and obey an older leader. Then what this
	// frame says of older terms (OldTermAge) and its Releases don't last.
	Unsaved bool

	// Ack echoes the newest frame that came from the recipient.
	AckIncarnation uint64
	AckSeq         uint64

	// Ready says that the sender's monitor runs, holds the node's lock and has
	// cleaned up: it asks for a lease. Leaving says that it shuts down: it
	// needs the lease only until its groups are stopped, and gets no more.
	Ready   bool
	Leaving bool

	// Asks wants an answer: a beat or a probe, or a frame of a leader's round. An
	// answer itself asks for none, unless a beat was due.
	Asks bool

	Revision uint64        // database revision applied
	UpSince  time.Duration // how long the agent has run: a restart is seen at once

	// Grant is the leader's, in answer to the frame (GrantIncarnation, GrantSeq)
	// of the recipient: a lease that ends Grant after that frame was sent, on
	// the recipient's clock. 0: none.
	Grant            time.Duration
	GrantIncarnation uint64
	GrantSeq         uint64

	// Held is the Seq, among the sender's own, of the frame that its newest
	// lease was granted for (0: none): a leader sees who is deaf.
	Held uint64

	// OldTermAge is how long ago, on the sender's clock, it received the newest
	// frame of a term older than Term that it answered (a former leader: last
	// sent one as leader; restarted: since its start). What a new leader counts
	// W from: the older leader had sent that frame before.
	OldTermAge time.Duration

	Releases []Release
	Driver   [][]byte // heartbeats, votes and their answers, verbatim
}

// Release says that nothing of the group is left on the sender under Epoch or
// an older one.
type Release struct {
	Group       string // id
	Epoch       uint64
	Incarnation uint64
}
