package confdb

import "github.com/clusterplan/clusterplan/lang/spec"

// DeviceDriver is a driver whose agreement rests on a quorum device, which it
// asks through its owner. The owner takes DeviceOps after every call of the
// driver and carries each out beside all else, in any order, however long it
// takes: an operation that hangs delays nothing but its own DeviceDone.
type DeviceDriver interface {
	Driver
	// DeviceOps takes the operations that are to begin now.
	DeviceOps() []DeviceOp
	// DeviceDone tells what became of one. Data is the driver's only during the call.
	DeviceDone(now spec.Instant, r DeviceResult)
}

// DeviceOp is one read or write of the quorum device. Offsets and lengths are
// multiples of 4096. A write is durable when it is done.
type DeviceOp struct {
	ID      uint64
	Offset  int64
	Length  int    // of a read; what lies behind a file's end reads as zeros
	Data    []byte // not nil: a write
	Create  bool   // a write that may make the file
	Reserve int64  // not 0: a write that first has the file system set so many bytes aside from Offset on, where it can
}

// DeviceResult is what became of a DeviceOp.
type DeviceResult struct {
	ID      uint64
	Data    []byte // of a read, Length long
	Size    int64  // of a block device in bytes; 0 for a file, which grows
	Missing bool   // there is no such file
	Err     string // for people; "" is success
}
