// Package scenario reads scenario files (*.scenario.hcl) and carries them out on
// the simulated cluster of a definition: faults, repairs, waits and an operator's
// orders, with what has to be true after each. What runs is the code that the
// agents run (runtime/sim), in virtual time, so that the same definition and file
// give the same result, byte by byte.
//
// It touches nothing and asks no one. A file is never trusted: its size, nesting,
// steps and waits are bounded, and its expressions are literals and references.
//
// Start reading at Parse (parse.go); step.go and targets.go read what stands in a
// step, run.go carries it out, result.go is what comes of it, junit.go the same
// for CI.
package scenario
