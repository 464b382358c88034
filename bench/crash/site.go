package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/bench/internal/lab"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// site is one definition's directory.
type site struct {
	dir     string
	program string
	token   string
	want    shape
}

func (s *site) write() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "main.cluster.hcl"), []byte(s.want.definition(s.token)), 0o644)
}

func (s *site) start(ctx context.Context, what string) (*exec.Cmd, *os.File, error) {
	args := []string{what, s.dir, "--auto-approve"}
	if what == "plan" {
		args = []string{what, s.dir, "--detailed-exitcode"}
	}
	// A file and no pipe: agents may outlive the command, and hold what it has.
	log, err := os.Create(s.dir + "." + what)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, log, cmd.Start()
}

// command runs clusterplan to its end.
func (s *site) command(ctx context.Context, what string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd, log, err := s.start(ctx, what)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("clusterplan %s: %w\n%s", what, err, bytes.TrimSpace(text))
	}
	return nil
}

// killed begins an apply and kills it a while later. false: it had come to its
// end by then.
func (s *site) killed(ctx context.Context, after time.Duration) (bool, error) {
	cmd, log, err := s.start(ctx, "apply")
	if err != nil {
		return false, err
	}
	defer log.Close()
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // no other process has its number before Wait
	err = cmd.Wait()
	timer.Stop()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL && ctx.Err() == nil {
		return true, nil
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return false, fmt.Errorf("clusterplan apply: %w\n%s", err, bytes.TrimSpace(text))
	}
	return false, nil
}

// look reads the state, then what is there, so that what is there was begun
// before. whole: the cluster has to answer.
func (s *site) look(ctx context.Context, whole bool) (*look, error) {
	store, err := localstore.Open(localstore.DefaultPath(s.dir), localstore.Options{})
	if err != nil {
		return nil, err
	}
	snap, err := store.Read(context.Background())
	if err != nil {
		return nil, err
	}
	l := &look{ids: map[string]string{}, addrs: map[string]bool{}}
	know := func(o *statefile.Object) {
		l.ids[o.ID] = o.Addr.String()
		l.addrs[o.Addr.String()] = true
	}
	for i := range snap.State.Objects {
		know(&snap.State.Objects[i])
	}
	for _, p := range snap.Pending {
		if p.Object != nil {
			know(p.Object)
		}
	}
	l.things = s.processes()
	nodes, endpoints, err := s.nodes()
	if err != nil {
		return nil, err
	}
	l.things = append(l.things, nodes...)
	database, err := s.database(ctx, snap.State.Cluster, endpoints, whole)
	if err != nil {
		return nil, err
	}
	l.things = append(l.things, database...)
	return l, nil
}

// processes are the agents and programs of this site.
func (s *site) processes() (out []thing) {
	programs := map[string]string{}
	for g, resources := range s.want.groups {
		for r := range resources {
			programs[argument(s.token, g, r)] = resourceAddr(g, r)
		}
	}
	for _, pid := range lab.PIDs() {
		args := lab.Args(pid)
		if len(args) == 2 && args[0] == s.want.sleep && programs[args[1]] != "" {
			out = append(out, thing{kind: kindProgram, addr: programs[args[1]]})
		}
		if dir := s.agentDir(args); dir != "" {
			out = append(out, thing{kind: kindAgent, addr: "node." + filepath.Base(dir)})
		}
	}
	return out
}

// agentDir is the node's directory where args are those of an agent of this
// site, else "".
func (s *site) agentDir(args []string) string {
	i := slices.Index(args, "agent")
	if i < 0 || i+2 >= len(args) || args[i+1] != "--dir" || !strings.HasPrefix(args[i+2], s.dir+"/") {
		return ""
	}
	return args[i+2]
}

// nodes are the nodes' directories, and where their agents listen.
func (s *site) nodes() (out []thing, endpoints []string, err error) {
	files, err := filepath.Glob(filepath.Join(s.dir, ".clusterplan", "nodes", "*", "agent.json"))
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, nil, err
		}
		var conf struct {
			NodeID  string `json:"node_id"`
			Name    string `json:"name"`
			Address string `json:"address"`
		}
		if err := json.Unmarshal(data, &conf); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, thing{kind: kindNode, addr: "node." + conf.Name, id: conf.NodeID})
		endpoints = append(endpoints, conf.Address)
	}
	return out, endpoints, nil
}

// database is what the cluster's database has; nothing where there is no
// cluster yet, or none that answers and need not.
func (s *site) database(ctx context.Context, c *statefile.Cluster, endpoints []string, whole bool) (out []thing, err error) {
	if c == nil || len(endpoints) == 0 {
		if whole {
			return nil, errors.New("the state knows no cluster after the apply")
		}
		return nil, nil
	}
	id, err := pki.ParseIdentity(c.ID, c.Name, c.CACert, c.CAKey, c.Key)
	if err != nil {
		return nil, err
	}
	cert, err := id.ClientCert("bench", client.RoleAdmin, pki.ClientLife)
	if err != nil {
		return nil, err
	}
	pair, err := cert.TLS()
	if err != nil {
		return nil, err
	}
	conf, err := pki.ClientConfig(id.CACert, id.ID, pair, "")
	if err != nil {
		return nil, err
	}
	api := client.New(client.Options{Endpoints: endpoints, TLS: conf, Author: "bench", Patience: 2 * time.Second})
	defer api.Close()
	db, err := api.Config(ctx, true)
	if err != nil && !whole {
		db, err = api.Config(ctx, false)
	}
	if err != nil {
		if whole {
			return nil, fmt.Errorf("read the database: %w", err)
		}
		return nil, ctx.Err()
	}
	for _, m := range db.Members {
		out = append(out, thing{kindMember, m.Spec.Addr.String(), m.Spec.ID})
	}
	for _, g := range db.Groups {
		out = append(out, thing{kindGroup, g.Spec.Addr.String(), g.Spec.ID})
		for _, r := range g.Spec.Resources {
			out = append(out, thing{kindResource, r.Addr.String(), r.ID})
		}
	}
	return out, nil
}

// clear ends what a failed run has left, and removes its files.
func (s *site) clear() error {
	for _, pid := range lab.PIDs() {
		if s.agentDir(lab.Args(pid)) != "" {
			_ = syscall.Kill(pid, syscall.SIGKILL) // the programs end with it: their monitor sees to that
		}
	}
	return os.RemoveAll(s.dir)
}
