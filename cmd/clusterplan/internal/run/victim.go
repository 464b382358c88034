package run

import (
	"context"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers/local"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// Victim looks for one; nil where nothing comes online soon, or nobody says so.
func (s *Session) Victim() *view.Victim {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	// What an apply made just now is only in the files.
	if s.ReadState(ctx) != nil || !killable(&s.Snap.State) {
		return nil
	}
	for {
		st, err := s.Status(ctx)
		if err != nil || len(st.Nodes) < 2 || len(st.Groups) == 0 {
			return nil
		}
		if v := victim(st); v != nil {
			return v
		}
		select { // agents that were just started bring their groups up by themselves
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// killable tells whether the processes of all nodes are this machine's: the same
// numbers are other processes here, where a node is elsewhere.
func killable(st *statefile.State) bool {
	return !slices.ContainsFunc(st.Objects, func(o statefile.Object) bool {
		return o.Addr.Type == addr.TypeNode && o.Provider != local.Name
	})
}

func victim(st *client.Status) *view.Victim {
	for _, g := range st.Groups {
		if g.State != spec.StateOnline || g.Owner == "" {
			continue
		}
		for _, n := range st.Nodes {
			if n.Name == g.Owner && n.PID != 0 && n.MonitorPID != 0 {
				return &view.Victim{Group: g.Name, Node: n.Name, PID: n.PID, MonitorPID: n.MonitorPID}
			}
		}
	}
	return nil
}
