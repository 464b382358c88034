package confdb

import "time"

// Limits of checkpoints. They are part of the state machine: to change one is to
// change the format.
const (
	MaxChunk           = 256 << 10 // bytes of a chunk
	MaxCheckpoint      = 16 << 20  // bytes of one resource's checkpoint
	MaxCheckpoints     = 32 << 20  // bytes of all chunks
	MaxCheckpointFiles = 1000      // files of one resource's checkpoint
)

// Checkpoint is what a resource's files (or its command's output) were when they
// changed last. The bytes are chunks, found by their hash.
type Checkpoint struct {
	Epoch    uint64           `json:"epoch"` // of the owner who made it, or who restored it last
	Node     string           `json:"node"`  // id of that owner
	Revision uint64           `json:"revision"`
	Time     time.Time        `json:"time"`
	Size     int64            `json:"size"` // bytes of all files
	Files    []CheckpointFile `json:"files"`
}

// CheckpointFile is one file. A command's output has no path.
type CheckpointFile struct {
	Path   string   `json:"path,omitempty"` // absolute, or below the node's directory
	Mode   uint32   `json:"mode,omitempty"` // permission bits, with setuid, setgid and sticky as in st_mode
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Size   int64    `json:"size"`
	Chunks []string `json:"chunks,omitempty"` // sha256, hex: MaxChunk bytes each, the last one what is left
}

// Chunk is a piece of a checkpoint. Owner and Epoch say who is uploading it;
// they are empty once a checkpoint refers to it.
type Chunk struct {
	Owner string // group id, "/", resource
	Epoch uint64
	Data  []byte
}

// PutChunk uploads a piece for a checkpoint that follows.
type PutChunk struct {
	Group    string `json:"group"`
	Resource string `json:"resource"`
	Epoch    uint64 `json:"epoch"`
	Data     []byte `json:"data"`
}

// PutCheckpoint replaces a resource's checkpoint. All chunks have to be there.
type PutCheckpoint struct {
	Group    string           `json:"group"`
	Resource string           `json:"resource"`
	Epoch    uint64           `json:"epoch"`
	Files    []CheckpointFile `json:"files"`
}
