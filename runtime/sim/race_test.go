//go:build race

package sim

// raced: the race detector makes a run ten times as slow. There is one goroutine
// in here, so it has little to find, and the runs are fewer.
const raced = true
