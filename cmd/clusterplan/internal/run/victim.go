package run

import (
	"context"
	"time"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Victim looks for one; nil where nothing is online yet or nobody says so soon.
func (s *Session) Victim() *view.Victim {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// What an apply made just now is only in the files.
	if s.ReadState() != nil {
		return nil
	}
	st, err := s.Status(ctx)
	if err != nil || len(st.Nodes) < 2 {
		return nil
	}
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
