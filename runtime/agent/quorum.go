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
// of that model (none: a majority's). It is written down first.
func (n *Node) become(q spec.Quorum) error {
	if n.quorum == q || n.joined {
		return nil
	}
	if st := n.member.Status(); st.Driver.Role != confdb.Outside || len(st.Driver.Voters) > 0 {
		return nil // the member itself refuses what follows
	}
	if err := n.writeModel(q); err != nil {
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

// writeModel writes down which database the directory is for.
func (n *Node) writeModel(q spec.Quorum) error {
	path := filepath.Join(n.files.dir, dataDir, modelFile)
	if q.Model == "" { // a majority's: nothing is
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return atomicfile.SyncDir(filepath.Dir(path))
	}
	text := string(q.Model) + "\n"
	if q.Device != "" {
		text += q.Device + "\n"
	}
	return atomicfile.Write(path, []byte(text), 0o600)
}

// readJoined tells whether the directory's server was a member of a cluster with
// a quorum device. The device alone has the database: without this mark a member
// that starts over an emptied device would pass for one that waits.
func readJoined(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, dataDir, joinedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// markJoined writes that mark, once this node has some of the database.
func (n *Node) markJoined() {
	if n.joined || n.quorum.Model != spec.SingleQuorum {
		return
	}
	if err := atomicfile.Write(filepath.Join(n.files.dir, dataDir, joinedFile), nil, 0o600); err != nil {
		n.log.Error("it can't be written down that this node is a member; it is tried again with the next update", "err", err)
		return
	}
	n.joined = true
}

// invited makes a waiting node one of a cluster with a quorum device, once the
// device's owner asks it to take part; and one that was to be the first of such a
// cluster, and was refused, one of the cluster that another is the first of.
func (n *Node) invited(in member.MessageIn) {
	if n.joined || n.quorum.Model == spec.SingleNode {
		return
	}
	var q spec.Quorum // a majority's
	if diskdb.Speaks(in.Message.Data) {
		path, ok := diskdb.Invitation(in.Message.Data)
		if !ok {
			return
		}
		q = spec.Quorum{Model: spec.SingleQuorum, Device: path}
	}
	if err := n.become(q); err != nil {
		n.log.Error("this node can't take part in the cluster", "device", q.Device, "err", err)
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
