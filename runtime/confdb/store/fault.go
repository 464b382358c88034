package store

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
)

// checkHeads refuses a file of which one of the two head pages is damaged.
// bbolt itself would go on from the other, which is one write older: a vote
// or an entry that was acknowledged would be forgotten. (A crash damages none:
// what counts of a head lies in one sector.)
func checkHeads(f *os.File) error {
	var head [80]byte // a page's 16 bytes, then the head's 64: the last 8 are its checksum
	size := int64(0)
	for i := range 2 {
		if _, err := f.ReadAt(head[:], int64(i)*size); err != nil {
			return fmt.Errorf("%w: head %d can't be read: %v", ErrDamaged, i, err)
		}
		sum := fnv.New64a()
		sum.Write(head[16:72])
		if sum.Sum64() != binary.NativeEndian.Uint64(head[72:]) {
			return fmt.Errorf("%w: the checksum of head %d doesn't match", ErrDamaged, i)
		}
		size = int64(binary.NativeEndian.Uint32(head[24:]))
	}
	return nil
}

// fault makes a page that can't be read (a file that was cut short under the
// mapping, a bad block) a panic that guard recovers, not the program's end.
// It returns what undoes it; both count for the calling goroutine.
func fault() func() {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}
