package providers

import (
	"context"
	"io/fs"
	"net"
	"time"
)

// Host is a computer that nodes are put on, as the node lifecycle needs it:
// this machine (providers/local), others over SSH. Errors say what and where;
// one that wraps ErrUnreachable says that the host itself can't be seen.
type Host interface {
	// Files under Root.
	Files() Files
	// Root is the absolute directory that holds bin/ and nodes/.
	Root() string
	// Dial connects to an address as the host itself sees it.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	// FreePort tells whether host:port can be listened on, with TCP and UDP.
	FreePort(ctx context.Context, hostPort string) (bool, error)
	// Start starts the agent of the node directory dir, unless it runs: as a
	// process of its own that outlives this program, its output in AgentLog. An
	// error: it can't be executed.
	Start(ctx context.Context, dir string) error
	// Stop ends the agent (asked first, killed after grace), and with it its
	// monitor and every process that belongs to the node; nil: none is left.
	Stop(ctx context.Context, dir string, grace time.Duration) error
	// Alive is the process id of the agent of dir; 0: it does not run.
	Alive(ctx context.Context, dir string) (pid int, err error)
}

// Files are files on a host. Paths are slash separated and relative to the
// host's root. What is written is durable when the call returns.
type Files interface {
	// Read returns a file's content; fs.ErrNotExist wrapped when there is none.
	Read(ctx context.Context, path string) ([]byte, error)
	// Write replaces a file in one step. Directories are made as needed, 0700.
	Write(ctx context.Context, path string, data []byte, perm fs.FileMode) error
	// Copy brings a file of this machine there, in one step (a hard link will do).
	Copy(ctx context.Context, local, path string, perm fs.FileMode) error
	// Link makes path a symbolic link to target, in one step.
	Link(ctx context.Context, target, path string) error
	// ReadLink returns a link's target; fs.ErrNotExist wrapped when there is none.
	ReadLink(ctx context.Context, path string) (string, error)
	// List returns the names in a directory, sorted; none when there is no such directory.
	List(ctx context.Context, dir string) ([]string, error)
	// Remove removes a file, or a directory with all that lies in it; that it is gone already is fine.
	Remove(ctx context.Context, path string) error
}

// What lies under a host's root, and in a node's directory.
const (
	BinDir   = "bin"   // programs, clusterplan-<first 16 hex digits of sha256>
	NodesDir = "nodes" // a directory a node

	AgentConfigFile = "agent.json"
	NodeCertFile    = "node.crt"
	NodeKeyFile     = "node.key"
	CACertFile      = "ca.crt"
	ClusterKeyFile  = "cluster.key"
	DataDirName     = "data"
	AgentLink       = "bin/clusterplan" // symbolic link to the node's program in BinDir
	AgentLog        = "log/agent.log"
	AgentPIDFile    = "run/agent.pid"
	AgentSocket     = "run/api.sock"
	NodeLockFile    = "run/node.lock"
)

// AgentConfig is a node's agent.json.
type AgentConfig struct {
	ClusterID string `json:"cluster_id"`
	Cluster   string `json:"cluster"`
	NodeID    string `json:"node_id"`
	Name      string `json:"name"`
	Address   string `json:"address"` // host:port that it listens on, TCP and UDP
	Version   string `json:"version"` // of the program that wrote it
}
