package agent

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// What lies in a node's directory. Providers write the first five, the agent
// the rest.
const (
	configFile = "agent.json"
	certFile   = "node.crt"
	keyFile    = "node.key"
	caFile     = "ca.crt"
	frameKey   = "cluster.key"
	dataDir    = "data"
	runDir     = "run"
	logDir     = "log"
	pidFile    = "agent.pid"
	socketFile = "api.sock"
	modelFile  = "model"  // in dataDir: written before the first entry of a cluster that is no majority's
	joinedFile = "joined" // in dataDir, with a quorum device: this server was a member
)

// fileConfig is agent.json.
type fileConfig struct {
	ClusterID string `json:"cluster_id"`
	Cluster   string `json:"cluster"`
	NodeID    string `json:"node_id"`
	Name      string `json:"name"`
	Address   string `json:"address"` // host:port, TCP and UDP
	Version   string `json:"version"`

	Watchdog        string        `json:"watchdog,omitempty"` // its device; "": none is opened
	WatchdogTimeout spec.Duration `json:"watchdog_timeout,omitempty"`
	Reset           string        `json:"reset,omitempty"` // spec.ResetSysrq; "": it doesn't reset itself (reset.go)
}

// files is all that the agent needs from its directory, checked.
type files struct {
	dir      string // absolute
	conf     fileConfig
	cert     tls.Certificate
	notAfter time.Time
	// An agent starts with an expired certificate: nodes take it, only the API's
	// callers don't (certwatch.go says so).
	notBefore time.Time
	ca        []byte
	key       []byte // 32 bytes
}

const mend = "clusterplan apply writes it"

// readFiles reads and checks the node's directory; all that is wrong is told at
// once.
func readFiles(dir string) (*files, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("node directory %q: %w", dir, err)
	}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is no node's directory (%s is wanted in it); %s", abs, configFile, "clusterplan apply makes it")
	}
	f := &files{dir: abs}
	var errs []error
	read := func(name string, secret bool) []byte {
		path := filepath.Join(abs, name)
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s is missing; %s", path, mend))
		case err != nil:
			errs = append(errs, fmt.Errorf("read %s: %w", name, err))
		case secret:
			if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
				errs = append(errs, fmt.Errorf("%s may be read by others (mode %04o): chmod 600 it, and if others have used this host, replace it", path, info.Mode().Perm()))
			}
		}
		return data
	}
	conf, cert, key, ca, frame := read(configFile, false), read(certFile, false), read(keyFile, true), read(caFile, false), read(frameKey, true)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := json.Unmarshal(conf, &f.conf); err != nil {
		errs = append(errs, fmt.Errorf("%s can't be read: %w; %s", filepath.Join(abs, configFile), err, mend))
	} else {
		errs = append(errs, f.conf.problems(filepath.Join(abs, configFile))...)
	}
	if f.cert, err = tls.X509KeyPair(cert, key); err != nil {
		errs = append(errs, fmt.Errorf("%s and %s: %w; %s", filepath.Join(abs, certFile), keyFile, err, mend))
	} else if peer, err := pki.ParseCert(cert); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(abs, certFile), err))
	} else {
		errs = append(errs, certProblems(filepath.Join(abs, certFile), peer, f.conf)...)
		f.notBefore, f.notAfter = peer.NotBefore, peer.NotAfter
	}
	f.ca = ca
	if f.key, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(frame))); err != nil || len(f.key) != 32 {
		errs = append(errs, fmt.Errorf("%s is no key (32 bytes, base64); %s", filepath.Join(abs, frameKey), mend))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for _, d := range []string{dataDir, runDir} {
		if err := os.MkdirAll(filepath.Join(abs, d), 0o700); err != nil {
			return nil, fmt.Errorf("make the node's directory: %w", err)
		}
	}
	return f, nil
}

func (c fileConfig) problems(path string) (errs []error) {
	for _, v := range []struct{ name, value string }{
		{"cluster_id", c.ClusterID}, {"cluster", c.Cluster}, {"node_id", c.NodeID}, {"name", c.Name}, {"address", c.Address}} {
		if v.value == "" {
			errs = append(errs, fmt.Errorf("%s: %s is missing; %s", path, v.name, mend))
		}
	}
	if c.Address != "" {
		if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" || port == "0" {
			errs = append(errs, fmt.Errorf("%s: address %q is no host:port with a fixed port", path, c.Address))
		}
	}
	return errs
}

func certProblems(path string, p pki.Peer, c fileConfig) (errs []error) {
	if p.ClusterID != c.ClusterID && c.ClusterID != "" {
		errs = append(errs, fmt.Errorf("%s is for the cluster with id %s, %s names %s; %s", path, p.ClusterID, configFile, c.ClusterID, mend))
	}
	if p.Role != pki.RoleNode {
		errs = append(errs, fmt.Errorf("%s has the role %q, a node's is needed", path, p.Role))
	} else if p.ID != c.NodeID && c.NodeID != "" {
		errs = append(errs, fmt.Errorf("%s is for the node with id %s, %s names %s; %s", path, p.ID, configFile, c.NodeID, mend))
	}
	return errs
}

// lockPatience is how long an agent waits for the pid file's lock. One that was
// killed while it started a process holds it on until that one runs its program:
// on a busy host that takes a while.
const lockPatience = 3 * time.Second

// lockPID holds the pid file for as long as the process lives. The lock tells
// whether an agent runs; the number tells which.
func lockPID(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the pid file: %w", err)
	}
	take := func() error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	err = take()
	for end := time.Now().Add(lockPatience); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end); err = take() {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		old, _ := io.ReadAll(io.LimitReader(file, 32))
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another agent runs for this directory (pid %s, says %s); stop it first", strings.TrimSpace(string(old)), path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := file.Truncate(0); err == nil {
		_, err = fmt.Fprintf(file, "%d\n", os.Getpid())
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
	}
	return file, nil
}

// programSum is the sha256 of the running program's file, even if another lies
// at its path by now.
func programSum() string {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
