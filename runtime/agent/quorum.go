package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/device"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// readModel reads which database this directory was made for: none is written
// down for a majority's, nor before a node is part of a cluster. A single node's
// may have become a majority's (settleGrown).
func readModel(dir string) (spec.Quorum, error) {
	data, err := os.ReadFile(filepath.Join(dir, dataDir, modelFile))
	if errors.Is(err, fs.ErrNotExist) {
		return spec.Quorum{}, nil
	}
	if err != nil {
		return spec.Quorum{}, err
	}
	model, device, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	q := spec.Quorum{Model: spec.QuorumModel(model), Device: device}
	switch {
	case q.Model == spec.SingleNode && device == "", q.Model == spec.SingleQuorum && filepath.IsAbs(device):
		return q, nil
	}
	return q, fmt.Errorf("%s doesn't name a quorum model of this program", filepath.Join(dir, dataDir, modelFile))
}

// become replaces the member of a waiting node, which holds nothing yet, by one
// of that model. It is written down first, for good.
func (n *Node) become(q spec.Quorum) error {
	st := n.member.Status()
	if st.Driver.Role != confdb.Outside || len(st.Driver.Voters) > 0 || n.quorum == q {
		return nil // the member itself refuses what follows
	}
	text := string(q.Model) + "\n"
	if q.Device != "" {
		text += q.Device + "\n"
	}
	if err := atomicfile.Write(filepath.Join(n.files.dir, dataDir, modelFile), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the database's model: %w", err)
	}
	stored, err := n.store.Load()
	if err != nil {
		return fmt.Errorf("read the node's database: %w", err)
	}
	m, err := n.newMember(q, stored)
	if err != nil {
		return err
	}
	n.member = m
	n.step(member.Tick{})
	for _, s := range []*seat{&n.freezer, &n.monitor} {
		if s.up {
			n.step(s.ready)
		}
	}
	return nil
}

// invited makes a waiting node one of a cluster with a quorum device, once the
// device's owner asks it to take part.
func (n *Node) invited(in member.MessageIn) {
	if n.quorum.Model != "" {
		return
	}
	path, ok := diskdb.Invitation(in.Message.Data)
	if !ok {
		return
	}
	if err := n.become(spec.Quorum{Model: spec.SingleQuorum, Device: path}); err != nil {
		n.log.Error("this node can't take part in the cluster", "device", path, "err", err)
	}
}

// deviceIO has an operation of the quorum device done beside all else.
func (n *Node) deviceIO(op confdb.DeviceOp) {
	if n.device == nil {
		return
	}
	asked := n.member
	n.device.Do(op, func(r confdb.DeviceResult) {
		done := make(chan struct{})
		// The member reads the result's data within its step.
		answer := func() {
			defer close(done)
			if n.member == asked {
				n.step(member.DeviceDone{Result: r})
			}
		}
		if n.give(job{fn: answer}) {
			select {
			case <-done:
			case <-n.ended:
			}
		}
	})
}

func (n *Node) openDevice(path string) {
	if n.device != nil {
		n.device.Close()
	}
	n.device = device.New(path)
}
