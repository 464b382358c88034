package monitor

import (
	"io"
	"sync"
	"time"
)

// speaker sends words to the agent in order, and never blocks who speaks.
// When the agent takes none for long, failed is closed and all else is lost:
// the agent hangs, its lease will end.
type speaker struct {
	w      io.Writer
	failed chan struct{}
	done   chan struct{} // run has ended

	mu       sync.Mutex
	queue    []Word
	wake     chan struct{}
	dead     bool // nothing is taken any more
	finished bool // wake is closed
}

// Bounds of the queue. Lines for the log are the first to go.
const (
	maxWords    = 8192
	maxLogWords = 1024
)

func newSpeaker(w io.Writer) *speaker {
	return &speaker{w: w, failed: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

func (s *speaker) say(w Word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.finished || w.Log != nil && len(s.queue) > maxLogWords {
		return
	}
	if len(s.queue) >= maxWords {
		s.dead, s.queue = true, nil
		close(s.failed)
		return
	}
	s.queue = append(s.queue, w)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *speaker) log(level, text string, args map[string]any) {
	s.say(Word{Log: &LogWord{Level: level, Text: text, Args: args}})
}

// run writes until the agent is gone. The loop hears of that by the end of its
// orders.
func (s *speaker) run() {
	defer close(s.done)
	for range s.wake { // a queue that isn't empty has its token in it, closed or not
		s.mu.Lock()
		words := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, w := range words {
			line, err := encodeLine(w)
			if err != nil {
				continue // a reason beyond all measure: the state is what counts
			}
			if _, err := s.w.Write(line); err != nil {
				s.mu.Lock()
				s.dead, s.queue = true, nil
				s.mu.Unlock()
				return
			}
		}
	}
}

// finish sends what was said, within that time, and takes no more.
func (s *speaker) finish(within time.Duration) {
	s.mu.Lock()
	if !s.finished {
		s.finished = true
		close(s.wake)
	}
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(within):
	}
}
