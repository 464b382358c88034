package providertest

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Agent is an agent in small, for the main of tests whose own program is what
// they install: "agent --dir DIR". It serves GET /v1/self over mutual TLS until SIGTERM. A file "fault"
// in its directory has it do something else.
func Agent(dir string) int {
	fault, _ := os.ReadFile(filepath.Join(dir, "fault"))
	switch string(fault) {
	case "exit":
		fmt.Fprintln(os.Stderr, "the roof is on fire")
		return 3
	case "hang":
		fmt.Fprintln(os.Stderr, "waiting for Godot")
		select {}
	case "leftover": // what a killed agent's monitor may be
		cmd := exec.Command("/proc/self/exe", "leftover")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 1
		}
	}
	die := func(err error) int { fmt.Fprintln(os.Stderr, err); return 1 }
	var conf providers.AgentConfig
	data, err := os.ReadFile(filepath.Join(dir, providers.AgentConfigFile))
	if err != nil {
		return die(err)
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return die(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, providers.CACertFile))
	if err != nil {
		return die(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, providers.NodeCertFile), filepath.Join(dir, providers.NodeKeyFile))
	if err != nil {
		return die(err)
	}
	config, err := pki.ServerConfig(ca, conf.ClusterID, pair, "http/1.1")
	if err != nil {
		return die(err)
	}
	config.Certificates = nil
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { // as it lies there now
		if now, err := tls.LoadX509KeyPair(filepath.Join(dir, providers.NodeCertFile), filepath.Join(dir, providers.NodeKeyFile)); err == nil && now.Leaf.Subject.CommonName == conf.NodeID {
			return &now, nil
		}
		return &pair, nil
	}
	server, err := serverID(filepath.Join(dir, providers.DataDirName))
	if err != nil {
		return die(err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return die(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, exe); err != nil {
		return die(err)
	}
	if err := os.WriteFile(filepath.Join(dir, providers.AgentPIDFile), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		return die(err)
	}
	lis, err := tls.Listen("tcp", conf.Address, config)
	if err != nil {
		return die(err)
	}
	self := providers.Self{ClusterID: conf.ClusterID, NodeID: conf.NodeID, ServerID: server, Membership: "waiting", Program: hex.EncodeToString(h.Sum(nil))}
	if string(fault) == "slow" {
		self.StopBound = spec.Duration(time.Minute)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	asked := 0
	go http.Serve(lis, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer := self
		_, alone := os.Stat(filepath.Join(dir, "alone")) // while it is there, nobody gives it a lease
		answer.Quorum = alone != nil
		_ = json.NewEncoder(w).Encode(answer)
		if asked++; alone == nil {
			_ = os.WriteFile(filepath.Join(dir, "alone"), fmt.Append(nil, asked), 0o600)
		}
	}))
	<-stop
	if self.StopBound > 0 { // it has groups to stop
		time.Sleep(300 * time.Millisecond)
		if err := os.WriteFile(filepath.Join(dir, "stopped"), nil, 0o600); err != nil {
			return die(err)
		}
	}
	return 0
}

func serverID(dir string) (uint64, error) {
	file := filepath.Join(dir, "server-id")
	data, err := os.ReadFile(file)
	if err != nil {
		data = make([]byte, 8)
		rand.Read(data)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return 0, err
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return 0, err
		}
	}
	return binary.LittleEndian.Uint64(data) | 1, nil
}
