package member

import (
	"errors"
	"fmt"
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/core"
)

// Codes of replies beside confdb's.
const (
	CodeNoLeader  = "no_leader"
	CodeNotLeader = "not_leader" // Detail: the leader's node id
	CodeBusy      = "busy"
	CodeUnknown   = "unknown" // it may have been committed, or be so later
)

// proposal is a command that is tried until it is applied.
type proposal struct {
	id      string
	data    []byte
	tokens  []uint64     // who waits
	until   spec.Instant // 0: for ever (the core's)
	tried   bool         // it went to a log or a leader at least once
	term    uint64       // in which it went into this leader's own log, where it stays; 0: it did not
	again   spec.Instant
	refused error
}

// commandID is a fresh id for a command of this node's own.
func (m *Member) commandID() string {
	m.serial++
	return fmt.Sprintf("%s-%x-m%d", m.cfg.NodeID, m.cfg.Incarnation, m.serial)
}

// submit takes a command from the API.
func (m *Member) submit(in Submit) {
	c := in.Command
	if c.ID == "" {
		c.ID = m.commandID()
	}
	if c.Time.IsZero() {
		c.Time = m.core.WallNow()
	}
	if r, ok := m.state.Answered(c.ID); ok {
		m.emit(Reply{Token: in.Token, Result: r})
		return
	}
	if p := m.proposals[c.ID]; p != nil {
		p.tokens = append(p.tokens, in.Token)
		return
	}
	data, err := confdb.EncodeCommand(c)
	if err != nil {
		m.emit(Reply{Token: in.Token, Result: confdb.Result{Code: confdb.CodeInvalid, Detail: err.Error()}})
		return
	}
	if len(data) > confdb.MaxCommand { // no patience makes it fit
		m.emit(Reply{Token: in.Token, Result: confdb.Result{Code: confdb.CodeLimit,
			Detail: fmt.Sprintf("the update has %d KiB; one may have %d at most: put less into it", len(data)>>10, confdb.MaxCommand>>10)}})
		return
	}
	m.try(&proposal{id: c.ID, data: data, tokens: []uint64{in.Token}, until: m.now.Add(submitPatience)})
	m.pump()
}

// proposeForCore proposes the core's command; false: it will never be applied.
func (m *Member) proposeForCore(e core.Propose) bool {
	data, err := confdb.EncodeCommand(e.Command)
	if err != nil {
		m.log("error", "a command of the core can't be encoded", "err", err)
		return false
	}
	m.ownIDs[e.Command.ID] = true
	if e.Term == 0 {
		m.try(&proposal{id: e.Command.ID, data: data})
		return true
	}
	// As leader of that very term, into the own log, now or never.
	s := m.drv.Status()
	if m.broken || s.Role != confdb.Leader || s.Term != e.Term || m.drv.Propose(data) != nil {
		delete(m.ownIDs, e.Command.ID)
		return false
	}
	return true
}

// try proposes, and remembers to do so again.
func (m *Member) try(p *proposal) {
	if m.proposals[p.id] == nil {
		m.proposals[p.id] = p
		m.ids = append(m.ids, p.id)
	}
	if !m.broken {
		if p.refused = m.drv.Propose(p.data); p.refused == nil {
			p.tried, p.term = true, 0
			if s := m.drv.Status(); s.Role == confdb.Leader {
				p.term = s.Term
			}
		}
	}
	p.again = m.now.Add(resend)
	m.sooner(p.again)
	if p.until != 0 {
		m.sooner(p.until)
	}
}

// retry proposes again what was not applied, and gives up what took too long.
func (m *Member) retry() {
	m.retryAt = 0
	s := m.drv.Status()
	led := s.Leader != 0
	for _, id := range slices.Clone(m.ids) {
		p := m.proposals[id]
		if p.until != 0 && m.now >= p.until {
			m.drop(id)
			r := confdb.Result{Code: CodeUnknown, Detail: "the command was not seen committed in time; it may be, or be later"}
			if !p.tried {
				r = confdb.Result{Code: CodeNoLeader, Detail: p.why()}
			}
			for _, t := range p.tokens {
				m.emit(Reply{Token: t, Result: r})
			}
			continue
		}
		if s.Role == confdb.Leader && p.term == s.Term {
			p.again = m.now.Add(resend) // a second copy of what lies in this log would only make it longer
		}
		if m.now >= p.again || !p.tried && led {
			m.try(p)
			continue
		}
		m.sooner(p.again)
		if p.until != 0 {
			m.sooner(p.until)
		}
	}
	m.checkChanges()
	m.pump()
}

func (p *proposal) why() string {
	if p.refused == nil {
		return confdb.ErrNoLeader.Error()
	}
	return p.refused.Error()
}

func (m *Member) drop(id string) {
	delete(m.proposals, id)
	if i := slices.Index(m.ids, id); i >= 0 {
		m.ids = slices.Delete(m.ids, i, i+1)
	}
}

// applied tells who waits for a command, and collects what the core is to know.
func (m *Member) applied(id string, r confdb.Result, own []core.Event) []core.Event {
	if p := m.proposals[id]; p != nil {
		m.drop(id)
		for _, t := range p.tokens {
			m.emit(Reply{Token: t, Result: r})
		}
	}
	if m.ownIDs[id] {
		delete(m.ownIDs, id)
		own = append(own, core.Proposed{ID: id, Result: r})
	}
	return own
}

// skippedBySnapshot finds what was applied in entries that this node never saw.
func (m *Member) skippedBySnapshot(own []core.Event) []core.Event {
	for _, d := range m.state.Done {
		own = m.applied(d.ID, d.Result, own)
	}
	return own
}

// change is a change of membership that someone waits for.
type change struct {
	in    Membership
	until spec.Instant
	voted bool // the server had a vote when it was asked for
}

func (m *Member) membership(in Membership) {
	var err error
	voted := slices.Contains(m.drv.Status().Voters, in.Server)
	switch in.Op {
	case "bootstrap":
		err = m.drv.Bootstrap()
	case "add_learner":
		if in.Endpoint != "" {
			m.learned[in.Server] = in.Endpoint
		}
		err = m.drv.AddLearner(in.Server)
	case "promote":
		err = m.drv.Promote(in.Server)
	case "remove":
		err = m.drv.Remove(in.Server)
	case "transfer":
		err = m.drv.Transfer(in.Server)
	default:
		err = fmt.Errorf("%q is no change of membership", in.Op)
	}
	if err != nil {
		m.emit(Reply{Token: in.Token, Result: m.refusal(err)})
		return
	}
	m.changes = append(m.changes, change{in, m.now.Add(submitPatience), voted})
	m.sooner(m.now.Add(submitPatience))
	m.pump()
	m.checkChanges()
}

func (m *Member) refusal(err error) confdb.Result {
	switch {
	case errors.Is(err, confdb.ErrNotLeader):
		return confdb.Result{Code: CodeNotLeader, Detail: m.nodeOf[m.drv.Status().Leader]}
	case errors.Is(err, confdb.ErrBusy), errors.Is(err, confdb.ErrNotCaughtUp):
		return confdb.Result{Code: CodeBusy, Detail: err.Error()}
	case errors.Is(err, confdb.ErrNoLeader):
		return confdb.Result{Code: CodeNoLeader, Detail: err.Error()}
	case errors.Is(err, confdb.ErrUnknown):
		return confdb.Result{Code: confdb.CodeNotFound, Detail: err.Error()}
	}
	return confdb.Result{Code: confdb.CodeInvalid, Detail: err.Error()}
}

// checkChanges answers the changes of membership that are done, or too late.
func (m *Member) checkChanges() {
	if len(m.changes) == 0 {
		return
	}
	s := m.drv.Status()
	m.changes = slices.DeleteFunc(m.changes, func(c change) bool {
		refused := ""
		voter, learner := slices.Contains(s.Voters, c.in.Server), slices.Contains(s.Learners, c.in.Server)
		done := false
		switch c.in.Op {
		case "bootstrap":
			done, refused = s.Role == confdb.Leader && s.Ready, s.BootRefused
		case "add_learner":
			done = learner || voter && !c.voted
		case "promote":
			done = voter
		case "remove":
			done = !voter && !learner
		case "transfer":
			done = s.Leader == c.in.Server
		}
		switch {
		case done:
			m.emit(Reply{Token: c.in.Token, Result: confdb.Result{Revision: m.state.Revision}})
		case refused != "":
			m.emit(Reply{Token: c.in.Token, Result: confdb.Result{Code: confdb.CodeInvalid, Detail: refused}})
			done = true
		case m.now >= c.until:
			why := "the change of membership was not seen done in time; it may be, or be later"
			if s.DeviceProblem != "" {
				why += ": " + s.DeviceProblem
			}
			m.emit(Reply{Token: c.in.Token, Result: confdb.Result{Code: CodeUnknown, Detail: why}})
			done = true
		default:
			m.sooner(c.until)
		}
		return done
	})
}

// memberNodes has the leader commit that nodes have caught up: from then on
// they count and may own groups.
func (m *Member) memberNodes() {
	m.checkChanges()
	if m.status.Role != confdb.Leader || !m.status.Ready {
		if len(m.joining) > 0 {
			clear(m.joining)
		}
		return
	}
	if !m.unjoined {
		return
	}
	s, caughtUp := m.drv.Status(), m.drv.CaughtUp()
	for _, id := range sortedKeys(m.state.Nodes) {
		n := m.state.Nodes[id]
		member := slices.Contains(s.Voters, n.ServerID) || slices.Contains(s.Learners, n.ServerID)
		if n.Joined || m.joining[id] || !member || n.ServerID != m.cfg.ServerID && !caughtUp[n.ServerID] {
			continue
		}
		m.joining[id] = true
		data, err := confdb.EncodeCommand(confdb.Command{
			ID: m.commandID(), Time: m.core.WallNow(), NodeJoined: &confdb.NodeRef{Node: id},
		})
		if err == nil && m.drv.Propose(data) != nil {
			delete(m.joining, id)
		}
	}
	m.pump()
}
