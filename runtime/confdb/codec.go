package confdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// NewState is the state before any command.
func NewState() *State {
	return &State{Nodes: map[string]*Node{}, Groups: map[string]*Group{}, Fences: map[string]*Fence{}}
}

// Encode is the state as a snapshot: JSON, and behind it what applications keep
// (codec_blobs.go); equal bytes for equal states.
func Encode(s *State) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the database's state: %w", err)
	}
	if s.hasBlobs() {
		data = s.appendBlobs(data)
	}
	return data, nil
}

// Decode reads a snapshot. Fields that this version doesn't know are refused:
// to drop them would make this copy differ from the others.
func Decode(data []byte) (*State, error) {
	s := NewState()
	data, blobs, more := bytes.Cut(data, []byte{'\n'})
	if err := strict(data, s); err != nil {
		return nil, fmt.Errorf("read the database's snapshot: %w", err)
	}
	if s.Nodes == nil {
		s.Nodes = map[string]*Node{}
	}
	if s.Groups == nil {
		s.Groups = map[string]*Group{}
	}
	if s.Fences == nil {
		s.Fences = map[string]*Fence{}
	}
	for id, f := range s.Fences {
		if f == nil {
			return nil, fmt.Errorf("read the database's snapshot: fence %s is null", id)
		}
	}
	for id, n := range s.Nodes {
		if n == nil {
			return nil, fmt.Errorf("read the database's snapshot: node %s is null", id)
		}
	}
	for id, g := range s.Groups {
		if g == nil {
			return nil, fmt.Errorf("read the database's snapshot: group %s is null", id)
		}
		for name, c := range g.Checkpoints {
			if c == nil {
				return nil, fmt.Errorf("read the database's snapshot: the checkpoint of %s in group %s is null", name, id)
			}
		}
	}
	if more {
		if err := s.readBlobs(blobs); err != nil {
			return nil, fmt.Errorf("read the database's snapshot: %w", err)
		}
	}
	return s, nil
}

// MaxCommand is the most bytes that a command may have in the log: drivers take
// no larger one.
const MaxCommand = 1 << 20

// EncodeCommand is a command as it stands in the log.
func EncodeCommand(c Command) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode a command: %w", err)
	}
	return data, nil
}

// DecodeCommand reads a command. An error on a committed one means that this
// program is older than the leader's: it must stop, not skip the command.
func DecodeCommand(data []byte) (Command, error) {
	var c Command
	if err := strict(data, &c); err != nil {
		return Command{}, fmt.Errorf("read a command: %w", err)
	}
	if err := c.check(); err != nil {
		return Command{}, fmt.Errorf("read a command: %w", err)
	}
	return c, nil
}

func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more data after its end")
	}
	return nil
}

// check refuses what is no command: no id, or not exactly one thing to do.
func (c *Command) check() error {
	if c.ID == "" {
		return errors.New("it has no id")
	}
	n := 0
	for _, set := range []bool{
		c.PutCluster != nil, c.PutNode != nil, c.DeleteNode != nil, c.NodeJoined != nil, c.PauseNode != nil,
		c.ResumeNode != nil, c.PutGroup != nil, c.DeleteGroup != nil, c.SetWant != nil, c.MoveGroup != nil,
		c.Handover != nil, c.Assign != nil, c.Report != nil, c.SetView != nil, c.EvictNode != nil, c.EndQuarantine != nil, c.ConfirmTimings != nil, c.TellLinks != nil, c.TellCert != nil, c.QuorumLost != nil, c.RotateKey != nil, c.KeyPhase != nil, c.Event != nil, c.Nothing,
		c.KV != nil, c.PutChunk != nil, c.PutCheckpoint != nil,
		c.PutFence != nil, c.DeleteFence != nil, c.FenceNode != nil, c.NodeFenced != nil, c.TakeChange != nil, c.EndChange != nil,
	} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("it says %d things to do, not one", n)
	}
	return nil
}

// same tells whether two parts of the definition are equal, by their canonical
// JSON: absent and empty lists don't differ.
func same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// address is the value of an ip_address resource, without its prefix length
// and in one way of writing.
func address(r spec.Resource) string {
	if r.Type != "ip_address" {
		return ""
	}
	text, _ := r.Attributes["address"].(string)
	host, _, _ := strings.Cut(text, "/")
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return host
}
