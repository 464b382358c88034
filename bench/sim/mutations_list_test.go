package main

// claims is the adversary of the quorum device's claims, for longer than in its own package's tests.
const claims = "./runtime/confdb/diskdb -run ^TestClaims$ -claims 300"

// mutations are the rules that make "never two owners" and "never lost", each
// broken. What the pages of the design list comes first. The search begins at the seed
// that has found it, and goes on from there when the source has changed since.
var mutations = []mutation{
	{name: "takeover wait dropped", edits: []edit{{"runtime/core/leader.go", "	if m.now >= free {\n", "	if true {\n"}}},
	{name: "lease counted from the answer", edits: []edit{{"runtime/core/lease.go", "p.answered = s.at\n", "p.answered = m.now\n"}}, hint: "--seed 17"},
	{name: "lease counted from receipt", edits: []edit{{"runtime/core/lease.go", "m.renew(s.at.Add(f.Grant))", "m.renew(m.now.Add(f.Grant))"}}},
	{name: "wait from the leader's own grant table", edits: []edit{{"runtime/core/leader.go", "max(m.oldLeases(), m.lead.nodeLeases[g.Owner.Node])", "m.lead.nodeLeases[g.Owner.Node]"}}},
	{name: "answers without the term check", edits: []edit{
		{"runtime/member/frames.go", "f.Leader == f.From && m.status.Role != confdb.Leader && f.Term == m.status.Term", "f.Leader == f.From && m.status.Role != confdb.Leader"},
		{"runtime/core/lease.go", "m.lead != nil && f.Term == m.lead.term", "m.lead != nil"},
	}, hint: "--seed 15"},
	{name: "a learner counted", edits: []edit{{"runtime/core/lease.go", "for _, v := range m.drv.Voters {\n		var t spec.Instant", "for _, v := range append(slices.Clone(m.drv.Voters), m.drv.Learners...) {\n		var t spec.Instant"}}, hint: "--seed 9 --nodes 5 --learners 2 --mix cut=6,crash=1,pause-agent=1"},
	{name: "a grant before the term's first entry", edits: []edit{{"runtime/core/lease.go", "return m.lead.ready && p.ready", "return p.ready"}}},
	{name: "a grant during a takeover", edits: []edit{{"runtime/core/lease.go", "!p.deaf && m.lead.taking[p.node] == 0 && ", "!p.deaf && "}}, hint: "--seed 20"},
	{name: "a grant to a node that doesn't know of a takeover", edits: []edit{{"runtime/core/lease.go", "p.revision >= max(m.lead.needRev[p.node], m.lead.revision) && ", ""}}},
	{name: "a release without epoch", edits: []edit{{"runtime/core/leader.go", "p.releases[id] >= g.Owner.Epoch && g.Owner.Epoch > 0", "p.releases[id] > 0"}}},
	{name: "a release without incarnation", edits: []edit{ // of a new one, while the old one's monitor lives
		{"runtime/core/group.go", "mine && !r.released && m.monitor && (", "mine && !r.released && ("},
		{"runtime/core/lease.go", "len(f.Releases) > 0 && !f.Unsaved && (p.granted == f.Incarnation || p.granted == 0 && m.oldIncarnationGone(p)) {", "len(f.Releases) > 0 {"},
	}, hint: "--nodes 3 --mix kill-agent=4,restarts=2,shutdown=2"},
	{name: "a stale incarnation's grant taken", edits: []edit{{"runtime/core/lease.go", "f.Grant <= 0 || f.GrantIncarnation != m.cfg.Incarnation || ", "f.Grant <= 0 || "}}, hint: "--seed 10 --nodes 3 --mix recording=5,kill-agent=4"},
	{name: "what was released is started again", edits: []edit{{"runtime/core/owner.go", "g.Owner.Epoch != r.epoch || r.released || ", "g.Owner.Epoch != r.epoch || "}}, hint: "--seed 4 --nodes 3"},
	{name: "rho dropped", edits: []edit{
		{"lang/spec/timings.go", "return (d*(100+RhoPercent) + (100 - RhoPercent) - 1) / (100 - RhoPercent)", "return d"},
		{"lang/spec/timings.go", "return d * (100 - RhoPercent) / (100 + RhoPercent)", "return d"},
	}},
	{name: "the monotonic clock used", edits: []edit{{"runtime/sim/host.go", "func (h *host) now() spec.Instant { return h.clock.read(h.w.now) }", `func (h *host) now() spec.Instant {
	slept := h.slept
	if h.suspended {
		slept += h.clock.read(h.w.now).Sub(h.clock.read(h.since))
	}
	return h.clock.read(h.w.now).Add(-slept)
}`}},
		hint: "--nodes 3 --mix suspend=3,cut=1"},
	{name: "an emptied voter that keeps its id", edits: []edit{{"runtime/sim/faults.go", "	clear(h.lastEpochs)\n	h.newServer()\n", "	clear(h.lastEpochs)\n"}}, hint: "--seed 54"},
	{name: "an older directory votes at once", edits: []edit{{"runtime/confdb/raftdb/driver.go", "	d.callRoll()\n", ""}}, hint: "--nodes 3 --mix older-disk=6,slow-disk=1"},
	{name: "an older directory heeds no other's log", edits: []edit{{"runtime/confdb/raftdb/rollcall.go", "	d.floor.log, d.floor.sure = top.log, top.applied\n", ""}}, hint: "--nodes 3 --mix older-disk=6,slow-disk=1"},
	{name: "the leader's own groups unleased", edits: []edit{{"runtime/core/lease.go", "m.renew(a.Add(m.leaseFor(m.cfg.Node)))", "m.renew(m.now.Add(m.leaseFor(m.cfg.Node)))"}}},
	{name: "an older epoch accepted from an owner's report", edits: []edit{{"runtime/confdb/apply_groups.go", "case r.Epoch != g.Owner.Epoch || r.Node != g.Owner.Node:", "case false:"}}},
	{name: "an older epoch accepted from an application", edits: []edit{{"runtime/confdb/apply_kv.go", "case epoch != 0 && epoch != g.Owner.Epoch:", "case false:"}}},
	{name: "a group goes on under an older epoch", edits: []edit{{"runtime/core/owner.go", "case r.epoch != g.Owner.Epoch:", "case false:"}, {"runtime/core/owner.go", "!m.owns(g) || g.Owner.Epoch != r.epoch || r.released", "!m.owns(g) || r.released"}}},
	{name: "the address left in the kernel", edits: []edit{{"runtime/sim/kernel.go", "	h.dropAddresses(m.seat)\n	if h.waking || h.suspended {", "	if h.waking || h.suspended {"}}},
	{name: "no dead man's timer", edits: []edit{{"runtime/sim/kernel.go", "	if m.alive {\n		h.tell(\"the kernel kills", "	if false {\n		h.tell(\"the kernel kills"}}},
	{name: "a lease longer than it was granted", edits: []edit{{"runtime/sim/kernel.go", "	m.lease = end\n", "	m.lease = end.Add(400 * time.Millisecond)\n"}}},
	{name: "a release before all is down", edits: []edit{{"runtime/sim/kernel.go", "	g.ends, g.waiting = append(g.ends, epoch), nil\n", "	g.ends, g.waiting = append(g.ends, epoch), nil\n	m.tell(member.GroupDown{Group: group, Epoch: g.epoch})\n"}}, hint: "--seed 36 --nodes 3 --mix shutdown=3,cut=1"},
	{name: "what a fence alone can free is freed by the wait", edits: []edit{{"runtime/core/fence.go", "	if !g.Owner.Open && !g.Spec.OutlivesLease() {\n", "	if true {\n"}}, hint: "--nodes 3 --fence"},
	{name: "freeze released by W", edits: []edit{{"runtime/core/fence.go", "return g.Freezes() || len(", "return !g.Freezes() && len("}}, hint: "--nodes 3 --fence"},
	{name: "ready before what a script left on is off", edits: []edit{{"runtime/sim/host.go", "			if covers, known := a.m.FenceCovers(); (covers || !known) && h.left(s) {\n", "			if false {\n"}}, hint: "--seed 1000 --nodes 3 --fence"},
	{name: "a state that may be old says that no fence covers the node", edits: []edit{{"runtime/core/fence.go", "(covers, known bool) {\n	return len(m.state.Covering(m.cfg.Node)) > 0, m.current()\n", "(covers, known bool) {\n	return len(m.state.Covering(m.cfg.Node)) > 0, true\n"}}, hint: "--seed 502 --nodes 3 --model single_quorum --fence --mix crash=4,failing-stop=8,kill-agent=3,restarts=2"},
	{name: "the wait for a watchdog dropped", edits: []edit{{"runtime/core/leader.go", "	return t.TakeoverWaitWith(s, o.Watchdog)\n", "	return t.TakeoverWait(s)\n"}}, hint: "--nodes 3 --watchdog"},
	{name: "a watchdog fed without a lease", edits: []edit{{"runtime/sim/watchdog.go", "		if h.now() >= m.lease && h.left(m.seat) {\n			return\n		}\n", ""}, {"runtime/sim/watchdog.go", "	took := w.between(5*time.Millisecond, 30*time.Millisecond)\n", "	took := w.between(5*time.Millisecond, 30*time.Millisecond)\n	h.feed()\n"}}, hint: "--seed 65 --nodes 3 --watchdog"},
	{name: "a vote is not written", edits: []edit{{"runtime/sim/disk.go", "		a.h.disk.stored.Write(p.What)\n		a.under = nil\n		if w.atEdge", "		p.What.HardState = a.h.disk.stored.HardState\n		a.h.disk.stored.Write(p.What)\n		a.under = nil\n		if w.atEdge"}}},
	{name: "an answer of the database before its log is written", edits: []edit{{"runtime/sim/disk.go", "	took := w.between(200*time.Microsecond, 6*time.Millisecond)\n", "	took := w.between(200*time.Microsecond, 6*time.Millisecond)\n	w.after(0, func() { a.input(member.Persisted{N: p.N}) })\n"}}, hint: "--seed 6"},
	{name: "a node answers reads from its own copy", edits: []edit{{"runtime/member/proposals.go", "	if r, ok := m.state.Answered(c.ID); ok {\n", "	if c.Nothing {\n		m.emit(Reply{Token: in.Token})\n		return\n	}\n	if r, ok := m.state.Answered(c.ID); ok {\n"}}},
	{name: "a leader answers reads without asking the others", edits: []edit{{"runtime/member/proposals.go", "	if r, ok := m.state.Answered(c.ID); ok {\n", "	if c.Nothing && m.status.Role == confdb.Leader && m.status.Ready {\n		m.emit(Reply{Token: in.Token})\n		return\n	}\n	if r, ok := m.state.Answered(c.ID); ok {\n"}},
		hint: "--nodes 5 --seed 300 --mix pause-agent=5,pause=2,suspend=2"},
	{name: "no device read-back", edits: []edit{
		{"runtime/confdb/diskdb/arbiter.go", "		if a.readAt >= a.holdEnd() {\n			a.judge()\n", "		if a.readAt >= a.holdEnd() {\n			a.won()\n"},
		{"runtime/confdb/diskdb/arbiter.go", "		a.wantAfter = a.renewedBy // a read that began before proves nothing\n", "		a.renewed()\n"},
	}, hint: "--nodes 3 --model single_quorum --mix claims=4,device-late=6,device-slow=1"},
	{name: "one log region for all epochs", edits: []edit{
		{"runtime/confdb/diskdb/owner.go", "	return d.a.tab.header.areaAt(d.a.slot, int(n))\n", "	return d.a.tab.header.areaAt(0, 0)\n"},
		{"runtime/confdb/diskdb/owner.go", "	h, epoch := d.a.tab.header, o.epoch\n", "	o.srcSlot, o.src.area = 0, 0\n	h, epoch := d.a.tab.header, o.epoch\n"},
		{"runtime/confdb/diskdb/owner.go", "d.a.tab.records[o.srcSlot].server, h.device, h.area)\n", "d.a.tab.records[o.srcSlot].server, h.device, h.area)\n		err = nil\n"},
		{"runtime/confdb/diskdb/owner.go", "	if p.area > 1 {\n", "	if p.area = 0; false {\n"},
	}, hint: "--nodes 3 --model single_quorum --mix crash=2,kill-agent=3,pause-agent=5,suspend=4,restarts=2,device-slow=1,device-late=2,claims=1"},
	// What the claims' own adversary finds: writes that take for ever, and clocks that stand still.
	{name: "a claim not bounded by D_io", edits: []edit{
		{"runtime/confdb/diskdb/arbiter.go", "		if a.now.Sub(a.basis) > limit {\n", "		if false {\n"},
		{"runtime/confdb/diskdb/arbiter.go", "a.now.Sub(a.readAt) > a.d() || ", ""},
	}, test: claims},
	{name: "a device owner's authority from the end of its renewal", edits: []edit{{"runtime/confdb/diskdb/arbiter.go", "		a.renewedBy = a.io.newest()\n", "		a.renewal, a.renewedBy = a.now, a.io.newest()\n"}}, test: claims},
	{name: "an owner's silence from the first read's start", edits: []edit{{"runtime/confdb/diskdb/arbiter.go", "			a.seen[s] = a.now\n", "			a.seen[s] = a.readAt\n"}}, test: claims},
	{name: "no look at the device after a record", edits: []edit{{"runtime/confdb/diskdb/owner.go", "		if d.a.verifiedBy <= o.proof {\n", "		if false {\n"}},
		test: "./runtime/confdb/diskdb -run ^TestSuspendedGuestLosesNothing$"},
	{name: "a single node's database written on while it becomes a majority's", edits: []edit{{"runtime/member/member.go", "		if m.ready != nil || m.grows() {\n", "		if m.grows(); m.ready != nil {\n"}}, hint: "--nodes 3 --grow"},
	{name: "S shortened unconfirmed", edits: []edit{{"runtime/confdb/apply_groups.go", "	g.Spec = next\n", "	g.Spec, g.Owner.StopWithin = next, next.StopWithin\n"}}, hint: "--seed 31"},
	{name: "L shortened unconfirmed", edits: []edit{{"runtime/confdb/apply_timings.go", "	n.Lease = max(n.Lease, now.Lease)\n", "	n.Lease = now.Lease\n"}},
		hint: "--seed 7 --nodes 5 --mix cut=3,pause=2,pause-agent=2"},
}
