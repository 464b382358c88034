package monitor

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/clusterplan/clusterplan/runtime/checkpoint"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// keeper is a resource's checkpoint in one life of it; nil where it has none.
type keeper struct {
	*checkpoint.Keeper
	online bool
}

// socketPatience bounds the wait for the group's socket: without it the resource
// runs as well, only without the API.
const socketPatience = 500 * time.Millisecond

// awaitSocket waits until the agent has made the group's socket, which it does
// beside the order to start.
func awaitSocket(ctx context.Context, path string) {
	for end := time.Now().Add(socketPatience); path != "" && time.Now().Before(end) && ctx.Err() == nil; {
		if _, err := os.Lstat(path); err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// restore brings a resource's files back before it starts.
func (m *monitor) restore(ctx context.Context, in *instance, env resource.Env, res *resource.Resource) (*keeper, error) {
	if in.spec.Checkpoint == nil {
		return nil, nil
	}
	user, err := res.User()
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	k := checkpoint.New(checkpoint.Config{
		Spec: *in.spec.Checkpoint, Node: env.Node, Dir: env.Dir, User: user, Run: res.Run,
		Store: checkpoint.NewRemote(env.Socket, in.ref.Group, in.spec.Name, env.Epoch),
		Log: func(text string) {
			m.out.log("warn", text, map[string]any{"group": env.Group, "resource": in.spec.Name})
		},
	})
	if err := k.Restore(ctx); err != nil {
		return nil, err
	}
	return &keeper{Keeper: k}, nil
}

// begin looks after the files while the resource is online, beside its checks:
// every now and then, until stop ends or the returned function is called, which
// waits for a look that is under way.
func (k *keeper) begin(stop context.Context, every time.Duration) (end func()) {
	if k == nil {
		return func() {}
	}
	k.online = true
	ctx, cancel := context.WithCancel(stop)
	done := make(chan struct{})
	go func() {
		defer close(done)
		timer := time.NewTimer(0) // what is there at first is kept at once
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				k.Look(ctx)
				timer.Reset(every)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// last keeps what the resource left when it stopped, while there is time.
func (k *keeper) last(ctx context.Context) {
	if k != nil && k.online && ctx.Err() == nil {
		k.Look(ctx)
	}
}
