package raftdb

import (
	"fmt"
	"maps"

	"go.etcd.io/raft/v3"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// CheckedBeat is Beat, and says what is wrong with what it sent: each other member that
// Raft knows gets one beat, which names what that is known to have and is committed.
func (d *Driver) CheckedBeat(now spec.Instant) error {
	before := len(d.urgent)
	d.Beat(now)
	if d.seen.state != raft.StateLeader {
		return nil
	}
	want, got := map[uint64]uint64{}, map[uint64]uint64{}
	if !d.muted {
		d.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr progress) {
			if id != d.id {
				want[id] = min(pr.Match, d.rn.BasicStatus().GetCommit())
			}
		})
	}
	for _, m := range d.urgent[before:] {
		b := &beat{}
		if !b.decode(m) || m.Data[1] != beatAsks {
			continue
		}
		if _, twice := got[m.To]; twice || b.term != d.seen.term {
			return fmt.Errorf("server %d, term %d: a second beat to %d, or one of term %d", d.id, d.seen.term, m.To, b.term)
		}
		got[m.To] = b.commit
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("server %d, term %d: beats (server: commit) %v, Raft knows of %v", d.id, d.seen.term, got, want)
	}
	return nil
}
