//go:build race

package apply_test

// raced: the race detector makes a run five times as slow; tests that repeat one
// apply for each of its writes are run without it, as .ci/run does.
const raced = true
