package store

import "runtime/debug"

// fault makes a page that can't be read (a file that was cut short under the
// mapping, a bad block) a panic that guard recovers, not the program's end.
// It returns what undoes it; both count for the calling goroutine.
func fault() func() {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}
