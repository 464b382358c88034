// Package planner works out what an apply would do: from a definition, the
// state, and the world as planner/refresh saw it, to a Plan. It is pure: no
// clock, no file, no network; the same input gives the same plan, byte for byte.
//
//	plan, diags := planner.Build(planner.Input{...})
//
// planner/apply carries a plan out. DESIGN.md says what is guaranteed and why
// the steps stand in the order they do. Start reading at plan.go (the result),
// then build.go (the way there).
package planner
