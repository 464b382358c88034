package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// rotationWithin bounds the wait for a rotation that was begun: each of its
// steps takes a commit and a round of frames.
const rotationWithin = time.Minute

// RotateKeys changes the frame key and waits until the new one is the only one.
func (s *Session) RotateKeys(ctx context.Context, o Order) (client.FrameKeys, error) {
	var none client.FrameKeys
	c, err := s.Client()
	if err != nil {
		return none, err
	}
	defer c.Close()
	told := func(err error) error {
		return interrupted(ctx, fmt.Errorf("keys rotate: %w", pki.Explain(err)))
	}
	before, err := c.Keys(ctx)
	if err != nil {
		return none, told(err)
	}
	if _, err := c.RotateKeys(ctx, o.Reason); err != nil {
		return none, told(err)
	}
	wait, cancel := context.WithTimeout(ctx, rotationWithin)
	defer cancel()
	for {
		now, err := c.Keys(wait)
		if err == nil && now.Generation > before.Generation && now.Phase == "" {
			return now, nil
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return none, ErrInterrupted
			}
			return none, errors.New("the new frame key is being handed out, but was not seen to be the only one in time; the leader goes on (clusterplan events)")
		case <-time.After(200 * time.Millisecond):
		}
	}
}
