package providers

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// What Read finds that is not as it should be. A plan shows the words as they
// are; some, those of certificates for one, go on after the prefix.
const (
	HealthGone       = "directory gone"      // ...: it is there and empty
	HealthNoData     = "data directory gone" // ...: it is there and empty
	HealthNotRunning = "agent not running"
	HealthHomeless   = "agent runs without its directory"
	HealthNoAnswer   = "agent does not answer"
	HealthProgram    = "agent program differs"
	HealthConfig     = "agent.json differs"
	HealthCert       = "certificate "     // ... expires in 3 days, expired, missing, of another authority
	HealthNetwork    = "network "         // ... namespace gone: what Host.Prepare made is not there
	HealthLink       = "network link of " // ... a network beside the node's own: wired while the agent runs
	HealthKeys       = "cluster key or authority differs"
	HealthNotMember  = "not a member"
	HealthNotCaught  = "not caught up yet"
	HealthServer     = "a new data directory, not the one that joined"
	HealthDrained    = "still drained by an earlier apply"
	HealthSettings   = "settings in the cluster differ"
	HealthService    = "service "               // ... unit differs: what starts the agent again, and after a boot
	HealthUnwatched  = "supervisor not running" // so that nobody starts the agent again
)

// HealthMachineOff is of a machine: what stands on it can't be reached.
const HealthMachineOff = "machine is off"

// has tells whether one of the findings begins with what.
func has(health []string, what ...string) bool {
	return slices.ContainsFunc(health, func(h string) bool {
		return slices.ContainsFunc(what, func(w string) bool { return strings.HasPrefix(h, w) })
	})
}

// Plan works out what an apply would leave and its phases.
func (p *Nodes) Plan(req PlanRequest) (PlanResponse, error) {
	if req.Config == cty.NilVal || req.Config.IsNull() {
		return PlanResponse{Phases: []string{PhaseDrain, PhaseLeave, PhaseStop, PhaseRemove}, Planned: cty.NilVal}, nil
	}
	planned, err := p.planned(req)
	if err != nil {
		return PlanResponse{}, err
	}
	if req.Prior == nil || req.Prior.Value == cty.NilVal {
		return PlanResponse{Planned: planned, Phases: []string{PhaseInstall, PhaseStart, PhaseJoin, PhasePromote}}, nil
	}
	res := PlanResponse{Planned: planned, Drift: req.Prior.Health}
	want := changesOf(req.Prior.Value, planned)
	switch moved := p.moved(req.Prior); {
	case want.provider:
		res.Replace = []cty.Path{cty.GetAttrPath("provider")}
	case len(moved) > 0:
		joined := req.Prior.Value.GetAttr("server_id")
		if p.hosts.Apart != nil && !joined.IsNull() {
			if err := p.hosts.Apart(private(req.Prior).Place); err != nil {
				return PlanResponse{}, err
			}
		}
		res.Replace = moved
	case want.listen && !p.sameHost(req.Prior.Value, planned):
		res.Replace = []cty.Path{cty.GetAttrPath("address")}
	}
	if len(res.Replace) > 0 {
		res.Impact = spec.ImpactReplace
		return res, nil
	}
	res.Phases, res.Impact = want.phases(req.Prior.Health)
	return res, nil
}

// moved are the attributes of the provider's block that have changed under a
// node, in a way that only making it anew can follow.
func (p *Nodes) moved(prior *Object) []cty.Path {
	own := private(prior)
	if own.Dir == "" { // nobody knows where it was put
		return nil
	}
	names := map[string]bool{}
	for name, v := range p.hosts.Place {
		names[name] = own.Place[name] != v
	}
	for name, v := range own.Place {
		names[name] = p.hosts.Place[name] != v
	}
	var out []cty.Path
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if names[name] {
			out = append(out, cty.GetAttrPath("provider").GetAttr(name))
		}
	}
	return out
}

// planned is the definition's value with the computed attributes.
func (p *Nodes) planned(req PlanRequest) (cty.Value, error) {
	attrs := req.Config.AsValueMap()
	prior := func(name string) cty.Value {
		if req.Prior != nil && req.Prior.Value != cty.NilVal && req.Prior.Value.Type().HasAttribute(name) {
			return req.Prior.Value.GetAttr(name)
		}
		return cty.NilVal
	}
	attrs["endpoint"] = cty.UnknownVal(cty.String)
	if attrs["address"].IsWhollyKnown() && attrs["port"].IsWhollyKnown() {
		n, err := decodeNode(cty.ObjectVal(attrs), nil)
		if err != nil {
			return cty.NilVal, err
		}
		host, port, err := listenAddress(n)
		if err != nil {
			return cty.NilVal, err
		}
		if p.hosts.Check != nil {
			if err := p.hosts.Check(n.Name, host); err != nil {
				return cty.NilVal, err
			}
		}
		had, stays := prior("endpoint"), false
		if had != cty.NilVal && !had.IsNull() && had.IsKnown() && len(p.moved(req.Prior)) == 0 {
			at := hostOf(had.AsString())
			if host == "" && p.hosts.Chooses {
				stays = p.hosts.Check == nil || p.hosts.Check(n.Name, at) == nil
			} else {
				stays = at == cmp.Or(host, loopback)
			}
			stays = stays && (port == 0 || had.AsString() == joinPort(hostOf(had.AsString()), port))
		}
		switch {
		case stays:
			attrs["endpoint"] = had // the address and port that it was given stay its own
		case port != 0 && (host != "" || !p.hosts.Chooses):
			attrs["endpoint"] = cty.StringVal(joinPort(cmp.Or(host, loopback), port))
		}
	}
	attrs["server_id"] = cty.UnknownVal(cty.Number)
	if v := prior("server_id"); v != cty.NilVal && !v.IsNull() && !has(req.Prior.Health, HealthGone, HealthNoData) {
		attrs["server_id"] = v
	}
	arch := private(req.Prior).Arch
	if arch == "" && len(p.hosts.Programs) > 0 {
		attrs["program"] = cty.UnknownVal(cty.String) // nobody has seen the host yet
		return cty.ObjectVal(attrs), nil
	}
	_, digest, err := p.program(arch)
	if err != nil {
		return cty.NilVal, err
	}
	attrs["program"] = cty.StringVal(digest)
	return cty.ObjectVal(attrs), nil
}

func (p *Nodes) sameHost(prior, planned cty.Value) bool {
	was, err := decodeNode(prior, nil)
	now, err2 := decodeNode(planned, nil)
	return err == nil && err2 == nil && p.cfg.SameHost(was.Node, now.Node)
}

// changes is which kinds of attributes differ.
type changes struct {
	provider, listen, program, name, role, settings bool
	witness                                         bool // its role becomes witness
	reach                                           bool // only how it is reached
	resets                                          bool // watchdog or reset: the agent opens them as it starts
	votes                                           int  // -1: takes its vote, 1: gives it one
}

func changesOf(prior, planned cty.Value) changes {
	var c changes
	same := func(name string) bool {
		if !prior.Type().HasAttribute(name) {
			return true
		}
		a, b := prior.GetAttr(name), planned.GetAttr(name)
		return a.IsWhollyKnown() && b.IsWhollyKnown() && (a.RawEquals(b) || (a.IsNull() && b.IsNull()) || equal(a, b))
	}
	c.provider, c.name, c.program = !same("provider"), !same("name"), !same("program")
	c.listen = !same("endpoint")
	c.reach = !same("ssh")
	c.role = !same("role")
	c.witness = c.role && known(planned, "role") && planned.GetAttr("role").AsString() == spec.RoleWitness
	if !same("votes") {
		c.votes = 1
		if known(planned, "votes") && planned.GetAttr("votes").Equals(cty.Zero).True() {
			c.votes = -1
		}
	}
	for _, name := range []string{"watchdog", "watchdog_timeout", "reset"} {
		if prior.Type().HasAttribute(name) {
			c.resets = c.resets || !same(name)
		} else { // a state from before there were any
			c.resets = c.resets || !planned.GetAttr(name).IsNull()
		}
	}
	for _, name := range []string{"zone", "capacity", "spare", "labels"} {
		c.settings = c.settings || !same(name)
	}
	return c
}

func known(v cty.Value, name string) bool {
	return v.GetAttr(name).IsWhollyKnown() && !v.GetAttr(name).IsNull()
}

func equal(a, b cty.Value) bool {
	if a.IsNull() || b.IsNull() || !a.Type().Equals(b.Type()) {
		return false
	}
	return a.Equals(b).True()
}

// phases are what mends the findings and brings the changes about, in order.
func (c changes) phases(health []string) ([]string, spec.Impact) {
	var out []string
	add := func(when bool, phase ...string) {
		if when {
			out = append(out, phase...)
		}
	}
	gone := has(health, HealthGone)
	down := gone || has(health, HealthNotRunning)
	network := slices.ContainsFunc(health, func(h string) bool {
		return strings.HasPrefix(h, HealthNetwork) && !strings.HasPrefix(h, HealthLink)
	})
	hung := has(health, HealthNoAnswer, HealthHomeless) || (network && !down)
	replaced := c.listen || c.program || c.resets || has(health, HealthProgram, HealthConfig, HealthKeys, HealthUnwatched)
	restart := replaced || has(health, HealthNoData) // what an agent that runs has left is in its memory, and ends with it
	install := gone || replaced || network || c.name || c.reach || has(health, HealthCert, HealthLink, HealthService)
	rejoin := gone || has(health, HealthNoData, HealthNotMember, HealthServer)
	drained := (restart && !down && !hung) || c.witness

	add(drained, PhaseDrain)
	add(c.votes < 0, PhaseDemote)
	add((restart && !down) || hung, PhaseStop)
	add(install, PhaseInstall)
	add(down || hung || restart, PhaseStart)
	add(rejoin, PhaseJoin)
	add(!rejoin && (c.listen || c.name || c.role || c.settings || c.resets || c.votes > 0 || has(health, HealthSettings)), PhaseUpdate)
	add(rejoin || c.votes > 0 || has(health, HealthNotCaught), PhasePromote)
	add(drained || has(health, HealthDrained), PhaseResume)

	switch {
	case len(out) == 0:
		return nil, spec.ImpactNone
	case slices.Contains(out, PhaseStop) || slices.Contains(out, PhaseStart):
		return out, spec.ImpactRestartAgent
	case c.votes != 0 || c.role || rejoin:
		return out, spec.ImpactMembership
	}
	return out, spec.ImpactNone
}
