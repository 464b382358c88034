package raftdb

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// marshal writes a message of Raft's. Its messages have no part that could fail.
func marshal(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("raftdb: %T can't be written: %v", m, err))
	}
	return data
}

// unmarshal reads one. What this version doesn't know is dropped: Raft compares
// memberships with what they were read from.
func unmarshal(data []byte, m proto.Message) error {
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
}

// Heartbeats and their answers are nearly all that an idle cluster says. They
// have an encoding of their own, a fifth of the cost: beatMark, which begins no
// message of Raft's, the kind, the term and the commit index. Sender and
// receiver stand in the frame.
const (
	beatMark    = 0x00
	beatAsks    = 1
	beatAnswers = 2
	callAsks    = 3 // of a roll call (rollcall.go)
	callTells   = 4
)

// maxBeat is the longest beat.
const maxBeat = 2 + 2*binary.MaxVarintLen64

func (d *Driver) sendBeat(kind byte, to, commit uint64) {
	if cap(d.paper)-len(d.paper) < maxBeat {
		d.paper = make([]byte, 0, 64*maxBeat) // many beats a piece of garbage
	}
	start := len(d.paper)
	d.paper = appendBeat(d.paper, kind, d.seen.term, commit)
	end := len(d.paper)
	d.urgent = append(d.urgent, confdb.Message{To: to, From: d.id, InFrame: true, Data: d.paper[start:end:end]})
}

func appendBeat(b []byte, kind byte, term, commit uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, beatMark, kind), term), commit)
}

// beat is a message in that encoding, read; as Raft's message it is valid until
// the next one is read.
type beat struct {
	from, to, term, commit uint64
	kind                   pb.MessageType
	msg                    pb.Message
}

func (b *beat) decode(in confdb.Message) bool {
	if len(in.Data) < 2 || in.Data[0] != beatMark {
		return false
	}
	switch in.Data[1] {
	case beatAsks:
		b.kind = pb.MsgHeartbeat
	case beatAnswers:
		b.kind = pb.MsgHeartbeatResp
	default:
		return false
	}
	rest := in.Data[2:]
	for _, v := range [...]*uint64{&b.term, &b.commit} {
		n := 0
		if *v, n = binary.Uvarint(rest); n <= 0 {
			return false
		}
		rest = rest[n:]
	}
	b.from, b.to = in.From, in.To
	b.msg.Type, b.msg.From, b.msg.To, b.msg.Term, b.msg.Commit = &b.kind, &b.from, &b.to, &b.term, &b.commit
	return len(rest) == 0
}

func encodeMessage(m *pb.Message) confdb.Message {
	out := confdb.Message{To: m.GetTo(), From: m.GetFrom(), Data: marshal(m)}
	switch m.GetType() {
	case pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp:
		out.InFrame = true
	}
	return out
}

// accept reads a message and checks it against what this server holds.
func (d *Driver) accept(in confdb.Message) (*pb.Message, bool) {
	var m *pb.Message
	if d.beat.decode(in) {
		m = &d.beat.msg
	} else {
		m = &pb.Message{}
		if unmarshal(in.Data, m) != nil || m.GetType() == pb.MsgHeartbeat || m.GetType() == pb.MsgHeartbeatResp {
			return nil, false
		}
	}
	if d.older || m.GetFrom() == 0 || m.GetFrom() == d.id || m.GetFrom() != in.From || m.GetTo() != d.id || raft.IsLocalMsgTarget(m.GetFrom()) {
		return nil, false
	}
	if d.call != nil && m.GetType() != pb.MsgHeartbeat {
		return nil, false
	}
	switch m.GetType() {
	case pb.MsgProp:
		// Once forwarded is enough: a former leader doesn't send it round.
		if d.seen.state != raft.StateLeader || m.GetTerm() != 0 || len(m.GetEntries()) == 0 {
			return nil, false
		}
		for _, e := range m.GetEntries() {
			if e.GetType() != pb.EntryNormal || len(e.GetData()) == 0 || len(e.GetData()) > maxCommand {
				return nil, false
			}
		}
		return m, true
	case pb.MsgHeartbeat:
		// A leader names no more than this server acknowledged as durable, so
		// more means that the log here is not what it was.
		if last, _ := d.log.LastIndex(); m.GetCommit() > last {
			d.older = d.older || m.GetTerm() >= d.seen.term
			return nil, false
		}
		if d.call != nil {
			return nil, false
		}
	case pb.MsgApp:
		if !checkEntries(m) {
			return nil, false
		}
	case pb.MsgSnap:
		if s := m.GetSnapshot(); !checkSnapshot(s) || s.GetMetadata().GetTerm() > m.GetTerm() {
			return nil, false
		}
	case pb.MsgAppResp:
		if last := d.lastIndex; !m.GetReject() && m.GetIndex() > last && d.seen.state == raft.StateLeader {
			return nil, false
		}
	case pb.MsgVote, pb.MsgPreVote:
		if !d.mayVote(m) {
			return nil, false
		}
	case pb.MsgTimeoutNow:
		if d.belowFloor(d.end()) {
			return nil, false
		}
	case pb.MsgHeartbeatResp, pb.MsgVoteResp, pb.MsgPreVoteResp:
	default:
		return nil, false
	}
	return m, m.GetTerm() != 0 // without a term Raft takes it for a local one
}

func checkEntries(m *pb.Message) bool {
	term := m.GetLogTerm()
	for i, e := range m.GetEntries() {
		if e.GetIndex() != m.GetIndex()+1+uint64(i) || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return false
		}
		term = e.GetTerm()
		if !checkChange(e) {
			return false
		}
	}
	return true
}

// checkChange refuses an entry that no driver writes, and that Raft might
// panic on when it applies it. Changes are of one server, the simple kind.
func checkChange(e *pb.Entry) bool {
	switch e.GetType() {
	case pb.EntryNormal:
		return true
	case pb.EntryConfChange:
		_, ok := decodeChange(e.GetData())
		return ok
	}
	return false
}

func decodeChange(data []byte) (*pb.ConfChange, bool) {
	cc := &pb.ConfChange{}
	if unmarshal(data, cc) != nil || cc.GetNodeId() == 0 {
		return nil, false
	}
	switch cc.GetType() {
	case pb.ConfChangeAddNode, pb.ConfChangeRemoveNode, pb.ConfChangeAddLearnerNode:
		return cc, true
	}
	return nil, false
}

func checkSnapshot(s *pb.Snapshot) bool {
	meta := s.GetMetadata()
	if meta.GetIndex() == 0 || meta.GetTerm() == 0 || !checkMembers(meta.GetConfState()) {
		return false
	}
	_, err := confdb.Decode(s.GetData())
	return err == nil
}

// checkMembers wants a membership as simple changes make it: no joint one, each
// server once, at least one voter.
func checkMembers(cs *pb.ConfState) bool {
	if len(cs.GetVoters()) == 0 || len(cs.GetVotersOutgoing())+len(cs.GetLearnersNext()) > 0 || cs.GetAutoLeave() {
		return false
	}
	ids := slices.Concat(cs.GetVoters(), cs.GetLearners())
	slices.Sort(ids)
	return ids[0] != 0 && len(slices.Compact(ids)) == len(cs.GetVoters())+len(cs.GetLearners())
}

func encodeSnapshot(s *pb.Snapshot) []byte { return marshal(s) }

// An entry in the store: a byte for its type, then its data.
func encodeEntry(e *pb.Entry) confdb.LogEntry {
	data := make([]byte, 0, 1+len(e.GetData()))
	data = append(data, byte(e.GetType()))
	return confdb.LogEntry{Index: e.GetIndex(), Term: e.GetTerm(), Data: append(data, e.GetData()...)}
}

func decodeEntry(e confdb.LogEntry) (*pb.Entry, error) {
	if len(e.Data) == 0 {
		return nil, fmt.Errorf("%w: entry %d is empty", confdb.ErrDamaged, e.Index)
	}
	out := &pb.Entry{Index: new(e.Index), Term: new(e.Term), Type: pb.EntryType(e.Data[0]).Enum()}
	if len(e.Data) > 1 {
		out.Data = e.Data[1:]
	}
	if !checkChange(out) {
		return nil, fmt.Errorf("%w: entry %d can't be read", confdb.ErrDamaged, e.Index)
	}
	return out, nil
}

// A hard state in the store: term, vote and commit index, 8 bytes each.
func encodeHardState(hs *pb.HardState) []byte {
	data := make([]byte, 0, 24)
	data = binary.BigEndian.AppendUint64(data, hs.GetTerm())
	data = binary.BigEndian.AppendUint64(data, hs.GetVote())
	return binary.BigEndian.AppendUint64(data, hs.GetCommit())
}

func decodeHardState(data []byte) (*pb.HardState, error) {
	if data == nil {
		return &pb.HardState{}, nil
	}
	if len(data) != 24 {
		return nil, fmt.Errorf("%w: its term and vote have %d bytes, not 24", confdb.ErrDamaged, len(data))
	}
	return &pb.HardState{
		Term:   new(binary.BigEndian.Uint64(data)),
		Vote:   new(binary.BigEndian.Uint64(data[8:])),
		Commit: new(binary.BigEndian.Uint64(data[16:])),
	}, nil
}

// quiet is Raft's logger: cores have none. What it takes for impossible still
// stops the program, with its words.
type quiet struct{}

func (quiet) Debug(...any)            {}
func (quiet) Debugf(string, ...any)   {}
func (quiet) Error(...any)            {}
func (quiet) Errorf(string, ...any)   {}
func (quiet) Info(...any)             {}
func (quiet) Infof(string, ...any)    {}
func (quiet) Warning(...any)          {}
func (quiet) Warningf(string, ...any) {}

func (quiet) Fatal(v ...any)            { panic("raft: " + fmt.Sprint(v...)) }
func (quiet) Fatalf(f string, v ...any) { panic("raft: " + fmt.Sprintf(f, v...)) }
func (quiet) Panic(v ...any)            { panic("raft: " + fmt.Sprint(v...)) }
func (quiet) Panicf(f string, v ...any) { panic("raft: " + fmt.Sprintf(f, v...)) }
