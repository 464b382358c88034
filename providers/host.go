package providers

import (
	"context"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Host is a computer that nodes are put on, as the node lifecycle needs it:
// this machine (providers/local), others over SSH. Errors say what and where;
// one that wraps ErrUnreachable says that the host itself can't be seen.
//
// A Host is taken for one look or one phase (Hosts.Host): what it has read it may
// answer again until something is changed through it, but for Alive, whose second
// answer and all later ones are new.
type Host interface {
	// Mutex is held while the ports and programs in use there are looked at and
	// written as one. The same for every Host of one computer.
	Mutex() sync.Locker
	// Arch is the computer's architecture as Go has it; "": this program's.
	Arch(ctx context.Context) (string, error)
	// Files under Root.
	Files() Files
	// Root is the absolute directory that holds bin/ and nodes/.
	Root() string
	// Address is where the node of dir is to listen, without a port: wanted, or
	// where that is "" the host's choice, the same for ever after. nth is the
	// node's place among the definition's, from 0. Errors of wanted are the plan's
	// already (Hosts.Check).
	Address(ctx context.Context, dir, wanted string, nth int) (string, error)
	// Prepare makes or mends what the node of dir needs around it, after Address
	// and before Start: a network of its own. Many hosts need nothing.
	Prepare(ctx context.Context, dir string) error
	// Inspect says what Prepare made and is not as it was, as Health words.
	Inspect(ctx context.Context, dir string) ([]string, error)
	// Release takes away what Address and Prepare made; that it is gone is fine.
	Release(ctx context.Context, dir string) error
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

// Hosts is what a provider's block says of its hosts.
type Hosts struct {
	// Host of a node: by its address, and how it is reached (SSH). No effects.
	Host func(n spec.Node) (Host, error)
	// Place is what of the provider's block can't change under a node: its
	// attributes by name. A node whose place differs is made anew.
	Place map[string]string
	// Apart is nil, or says why nodes of an earlier Place can't be in one cluster
	// with those of this one, and what to do: they can't be made anew one by one.
	Apart func(place map[string]string) error
	// Check is nil, or what is wrong with a node's name or with the address that
	// its definition gives (without a port; "": none). Pure.
	Check func(name, address string) error
	// Chooses says that the host chooses addresses (Host.Address); else a node
	// without one is at 127.0.0.1.
	Chooses bool
	// FirstPort and LastPort, unless they are 0, go before NodesConfig's.
	FirstPort, LastPort int
	// Programs are files of this program for hosts of other architectures (or in
	// place of Env.Program), by architecture.
	Programs map[string]string
	// KeepProgram keeps the program that a node had before, for a way back.
	KeepProgram bool
	// Close lets go of what hosts hold open; nil: nothing.
	Close func() error
	// Examine is nil, or looks at what the hosts of these nodes need besides
	// (Doctor). A host whose nodes it finds CheckKey wanting for is not gone to.
	Examine func(context.Context, []Examinee) []Finding
}

// Files are files on a host. Paths are slash separated and relative to the
// host's root. What is written is durable when the call returns.
type Files interface {
	// Read returns a file's content; fs.ErrNotExist wrapped when there is none.
	Read(ctx context.Context, path string) ([]byte, error)
	// Write replaces files, each in one step, in their order. Directories are made
	// as needed, 0700.
	Write(ctx context.Context, files ...File) error
	// Copy brings a file of this machine there, in one step (a hard link will do).
	// digest is its SHA-256, in hex.
	Copy(ctx context.Context, local, digest, path string, perm fs.FileMode) error
	// Link makes path a symbolic link to target, in one step.
	Link(ctx context.Context, target, path string) error
	// ReadLink returns a link's target; fs.ErrNotExist wrapped when there is none.
	ReadLink(ctx context.Context, path string) (string, error)
	// List returns the names in a directory, sorted; none when there is no such directory.
	List(ctx context.Context, dir string) ([]string, error)
	// Remove removes a file, or a directory with all that lies in it; that it is gone already is fine.
	Remove(ctx context.Context, path string) error
}

// File is one to be written.
type File struct {
	Path string
	Data []byte
	Perm fs.FileMode
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
	AgentLink       = "bin/clusterplan"          // symbolic link to the node's program in BinDir
	PreviousLink    = "bin/clusterplan.previous" // the one before it (Hosts.KeepProgram)
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

	Watchdog        string        `json:"watchdog,omitempty"` // device; "": none
	WatchdogTimeout spec.Duration `json:"watchdog_timeout,omitempty"`
	Reset           string        `json:"reset,omitempty"` // spec.ResetSysrq; "": it doesn't
}
