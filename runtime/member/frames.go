package member

import (
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/core"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// endpoint is where a server is reached: by the state; before the state names
// it, where its frames came from or its join said.
func (m *Member) endpoint(server uint64) string {
	if e := m.endpoints[server]; e != "" {
		return e
	}
	return m.learned[server]
}

// route sends a driver's message, or keeps it for the next frame to its
// receiver, which leaves with this Step.
func (m *Member) route(msg confdb.Message) {
	if msg.InFrame && m.beating {
		m.pulse[msg.To] = msg.Data
		return
	}
	if msg.InFrame {
		m.queue[msg.To] = append(m.queue[msg.To], msg.Data)
		m.sendNow = append(m.sendNow, msg.To)
		return
	}
	if to := m.endpoint(msg.To); to != "" {
		m.emit(SendMessage{To: to, Message: msg})
	}
}

// frameIn takes a frame: the driver first, so that the answer tells the term
// as it is after receipt; then the core. It returns the server to answer.
func (m *Member) frameIn(in *FrameIn) uint64 {
	f := &in.Frame
	if f.From == 0 || f.From == m.cfg.ServerID || f.To != 0 && f.To != m.cfg.ServerID {
		return 0
	}
	if in.From != "" && m.endpoints[f.From] == "" {
		m.learned[f.From] = in.From
	}
	if m.status.Starting && len(f.Driver) == 0 {
		m.drv.Step(m.now, confdb.Message{From: f.From, To: m.cfg.ServerID, InFrame: true}) // there is somebody to ask
	}
	for _, data := range f.Driver {
		m.drv.Step(m.now, confdb.Message{From: f.From, To: m.cfg.ServerID, InFrame: true, Data: data})
	}
	m.pump()
	m.coreStep(core.Heard{Frame: f})
	if f.Asks || !m.core.Timings().Probing() && f.Leader == f.From && m.status.Role != confdb.Leader && f.Term == m.status.Term {
		return f.From
	}
	return 0
}

// beat sends a leader's round: one frame to each member, which carries the
// driver's heartbeat, the grant, and asks for an answer. Where each node beats
// to each other (core's probes), these beats carry the heartbeats.
func (m *Member) beat() {
	interval := m.core.Pace()
	if m.nextBeat = m.nextBeat.Add(interval); m.nextBeat <= m.now {
		m.nextBeat = m.now.Add(interval)
	}
	probing := m.core.Timings().Probing()
	m.beating = probing
	m.drv.Beat(m.now)
	m.routeNow()
	m.beating = false
	m.pump()
	m.carryOut(m.core.Beaten(m.now))
	if probing {
		return
	}
	for _, servers := range [...][]uint64{m.status.Voters, m.status.Learners} {
		for _, s := range servers {
			if s != m.cfg.ServerID {
				m.sendNow = append(m.sendNow, s)
			}
		}
	}
}

// flush sends the frames of this Step: what the driver has for them, answers,
// and a leader's round.
func (m *Member) flush(answer uint64) {
	if answer != 0 {
		m.sendNow = append(m.sendNow, answer)
	}
	if len(m.sendNow) == 0 {
		return
	}
	slices.Sort(m.sendNow)
	m.sendNow = slices.Compact(m.sendNow)
	for _, s := range m.sendNow {
		to := m.endpoint(s)
		rest := m.queue[s]
		if rest != nil {
			m.queue[s] = rest[:0] // for the next Step: until then it is the frames'
		}
		if to == "" || m.stopped || m.broken {
			continue
		}
		for {
			n := min(len(rest), heartbeat.MaxDriver)
			o := m.frame()
			o.To, o.Also, o.Frame = to, m.paths[s], m.core.Frame(m.now, s)
			f := &o.Frame
			f.Driver = rest[:n:n]
			rest = rest[n:]
			if pulse := m.pulse[s]; pulse != nil && f.Asks && n < heartbeat.MaxDriver {
				f.Driver = append(f.Driver, pulse)
			}
			m.emit(o)
			if len(rest) == 0 {
				break
			}
		}
	}
	m.sendNow = m.sendNow[:0]
}

// frame is the memory for one more frame of this Step.
func (m *Member) frame() *SendFrame {
	if m.framesUsed == len(m.frames) {
		m.frames = append(m.frames, new(SendFrame))
	}
	m.framesUsed++
	return m.frames[m.framesUsed-1]
}

// shutdown has the core stop and release this node's groups.
func (m *Member) shutdown() {
	if m.closing {
		return
	}
	m.closing = true
	m.coreStep(core.Shutdown{})
}

// stopWhenDone hands leadership over once the groups are gone, and ends.
func (m *Member) stopWhenDone() {
	if !m.drained || m.stopped {
		return
	}
	s := m.drv.Status()
	if s.Role == confdb.Leader && !m.broken && m.now < m.drainedAt.Add(transferPatience) {
		if m.transferring {
			return
		}
		if to := m.heir(s); to != 0 {
			m.transferring = true
			if m.drv.Transfer(to) == nil {
				m.pump()
				return
			}
		}
	}
	m.stopped = true
	m.emit(Stopped{})
}

// handOver hands leadership to another voter, if one is caught up; the core asks again.
func (m *Member) handOver() {
	s := m.drv.Status()
	if s.Role != confdb.Leader || m.broken {
		return
	}
	if to := m.heir(s); to != 0 && m.drv.Transfer(to) == nil {
		m.pump()
	}
}

// heir is the voter to hand leadership to: the first in id order that is
// caught up, witnesses last; 0: none.
func (m *Member) heir(s confdb.Status) uint64 {
	var witness uint64
	caughtUp := m.drv.CaughtUp()
	for _, v := range s.Voters {
		if v == m.cfg.ServerID || !caughtUp[v] {
			continue
		}
		if n := m.state.Nodes[m.nodeOf[v]]; n != nil && n.Spec.Witness() {
			if witness == 0 {
				witness = v
			}
			continue
		}
		return v
	}
	return witness
}

// sooner lowers m.retryAt.
func (m *Member) sooner(t spec.Instant) {
	if m.retryAt == 0 || t < m.retryAt {
		m.retryAt = t
	}
}
