//go:build race

package main

// raced: the race detector makes a script five times as slow; it sees those that
// plan, lock and keep state, and .ci/run runs all of them without it.
const raced = true
