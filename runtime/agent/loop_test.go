package agent

import "testing"

// The timer may go off until the agent's last moment; by then what a step needs is
// closed.
func TestNoTurnAfterTheEnd(t *testing.T) {
	n := &Node{halted: make(chan struct{}), stopped: true}
	n.turn(func() { t.Error("a member that has stopped was stepped") })
	n.tick() // without a member or a timer
}
