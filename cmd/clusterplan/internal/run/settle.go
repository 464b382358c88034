package run

import (
	"context"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// What an apply waits for groups that it did not touch itself: agents that it
// started have only begun to bring theirs back.
const (
	settleWithin = 10 * time.Second
	settlePoll   = 100 * time.Millisecond
)

// Unsettled are the groups that are on their way (pending) when an apply is
// done and that are so still after a while, with why; it waits for them no
// longer than that. Without an answer there are none.
func (s *Session) Unsettled(ctx context.Context, stop <-chan struct{}) []client.StatusGroup {
	c, err := s.Client()
	if err != nil {
		return nil
	}
	defer c.Close()
	return unsettled(ctx, stop, c.Status)
}

func unsettled(ctx context.Context, stop <-chan struct{}, status func(context.Context) (client.Status, error)) []client.StatusGroup {
	for end := time.Now().Add(settleWithin); ; {
		st, err := status(ctx)
		if err != nil {
			return nil
		}
		left := slices.DeleteFunc(st.Groups, func(g client.StatusGroup) bool { return g.State != spec.StatePending })
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		select {
		case <-time.After(settlePoll):
		case <-stop:
			return left
		case <-ctx.Done():
			return left
		}
	}
}
