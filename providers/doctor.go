package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Doctor is what a Provider may be besides: it tells what hosts and hypervisors
// lack for its objects, all at once and before anything is touched.
type Doctor interface {
	// Examine looks and changes nothing. What it can't find out is a finding too.
	Examine(context.Context, Examination) []Finding
}

// Examination is what a definition wants of a provider's hosts.
type Examination struct {
	Objects []Examinee
	Needs   Needs
}

// Examinee is one object of the provider: its definition's value, of which parts
// may be unknown, and what the state has of it.
type Examinee struct {
	Addr   addr.Address
	ID     string // "": not made yet
	Config cty.Value
	Prior  *Object
	Early  bool // its host is not there yet: only what is on this machine is looked at
}

// Needs are what groups and fences want on the nodes that carry them out.
type Needs struct {
	Addresses   bool              // groups have addresses, which nodes take over
	FenceAgents []string          // programs, by name or absolute path
	Programs    map[string]string // that resources run, by absolute path: who wants it
}

// Levels of a finding.
const (
	LevelOK   = "ok"
	LevelWarn = "warn" // it works, not as well as it could
	LevelFail = "fail" // it will not work
)

// Checks that mean more to who asks than that something is wanting.
const (
	CheckConnection = "connection" // of a host that can't be reached
	CheckName       = "name"       // something else has it, also what the same apply removes
	CheckSubnet     = "subnet"     // likewise
	CheckKey        = "key"        // of this machine, to log in with
)

// Finding is one thing that was looked at.
type Finding struct {
	Where   string         `json:"where"`   // a host or a part of this program: "this machine", "10.0.0.1:22", "state"
	Check   string         `json:"check"`   // what was looked at, a word or two
	Level   string         `json:"level"`   // Level*
	Found   string         `json:"found"`   // what is there
	Advice  string         `json:"advice"`  // what to install or allow; "": nothing
	Objects []addr.Address `json:"objects"` // whose host it is
}

// ThisMachine is what findings call the computer that this program runs on.
const ThisMachine = "this machine"

// Prober is a Host that can be asked by a script for a POSIX shell, which reads
// and changes nothing. Hosts with the same name are the same computer.
type Prober interface {
	ProbeName() string
	Probe(ctx context.Context, script string) ([]byte, error)
}

const (
	admitWithin    = 5 * time.Minute // of one host: a person may be asked for a passphrase
	examineWithin  = time.Minute     // once it can be reached
	examineAtOnce  = 16              // hosts
	clockWarn      = time.Second     // events and logs of nodes no longer follow one another
	clockFail      = 4 * time.Minute // certificates begin five minutes before they are made
	clockUncertain = 2 * time.Second // more than this says nothing
)

// patient is one host, with the nodes on it.
type patient struct {
	host  Host
	name  string
	nodes []examinee
	ahead clockSpan // how far its clock is ahead of this machine's
}

// examinee is a node on a patient.
type examinee struct {
	Examinee
	node node
	site *site
}

// clockSpan is between which bounds a host's clock is ahead of this machine's.
type clockSpan struct {
	known    bool
	from, to time.Duration
}

// Examine looks at the hosts of nodes, several at once.
func (p *Nodes) Examine(ctx context.Context, e Examination) []Finding {
	var findings []Finding
	var patients []*patient
	barred := map[addr.Address]bool{}
	if p.hosts.Examine != nil && len(e.Objects) > 0 {
		findings = p.hosts.Examine(ctx, e.Objects)
		for _, f := range findings {
			for _, a := range f.Objects {
				barred[a] = barred[a] || f.Check == CheckKey && f.Level == LevelFail
			}
		}
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	places := make(chan struct{}, examineAtOnce)
	for _, o := range e.Objects {
		if o.Early || barred[o.Addr] {
			continue
		}
		wait.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, admitWithin)
			defer cancel()
			x, name, err := p.admit(ctx, o)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				check, level := "node", LevelFail
				switch {
				case errors.Is(err, ErrUnreachable):
					check = CheckConnection
				case errors.Is(err, errLater):
					level = LevelWarn
				}
				findings = append(findings, Finding{Where: name, Check: check, Level: level, Found: err.Error(), Objects: []addr.Address{o.Addr}})
				return
			}
			at := slices.IndexFunc(patients, func(other *patient) bool { return other.name == name })
			if at < 0 {
				at = len(patients)
				patients = append(patients, &patient{host: x.site.host, name: name})
			}
			patients[at].nodes = append(patients[at].nodes, x)
		})
	}
	wait.Wait()
	for _, each := range patients {
		wait.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, examineWithin)
			defer cancel()
			found := p.examine(ctx, each, e.Needs)
			mu.Lock()
			defer mu.Unlock()
			findings = append(findings, found...)
		})
	}
	wait.Wait()
	findings = append(findings, clocks(patients)...)
	for i := range findings {
		slices.SortFunc(findings[i].Objects, addr.Compare)
		if findings[i].Objects == nil {
			findings[i].Objects = []addr.Address{}
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Where, b.Where), strings.Compare(a.Check, b.Check))
	})
	return findings
}

var errLater = errors.New("its address is known only after an apply: look again then")

// admit finds a node's host and reaches it.
func (p *Nodes) admit(ctx context.Context, o Examinee) (examinee, string, error) {
	x := examinee{Examinee: o}
	name := o.Addr.String()
	if o.Config != cty.NilVal {
		o.Config, _ = o.Config.UnmarkDeep()
	}
	var err error
	if x.node, err = decodeNode(o.Config, o.Prior); err != nil {
		return x, name, err
	}
	if x.node.Address == "" && o.Config != cty.NilVal && !o.Config.IsNull() && !o.Config.GetAttr("address").IsKnown() {
		return x, name, errLater
	}
	name = cmp.Or(x.node.Address, name)
	host, err := p.host(x.node)
	if err != nil {
		return x, name, err
	}
	if q, ok := host.(Prober); ok {
		name = q.ProbeName()
	}
	// The connection is made now, so that the clock can be asked fast.
	x.site, err = p.locate(ctx, host, cmp.Or(o.ID, "none"), x.node, o.Prior)
	p.reached(host, err)
	if err == nil && o.ID == "" {
		err = p.homeless(ctx, x.site)
	}
	if err != nil {
		return x, name, err
	}
	return x, name, nil
}

// reached notes what came of an attempt to reach a host.
func (p *Nodes) reached(host Host, err error) {
	q, ok := host.(Prober)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, ErrUnreachable) {
		delete(p.silent, q.ProbeName())
		return
	}
	if p.silent == nil {
		p.silent = map[string]silence{}
	}
	p.silent[q.ProbeName()] = silence{err, time.Now()}
}

// unheard is the error of a host that was waited for in vain a moment ago, by a look
// before anything was touched: an apply doesn't wait for it again at once. Later it
// may have come back, so above all while a person was asked whether to apply.
func (p *Nodes) unheard(host Host) error {
	q, ok := host.(Prober)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.silent[q.ProbeName()]; ok && time.Since(s.since) < lately {
		return s.err
	}
	return nil
}

// examine looks at one host.
func (p *Nodes) examine(ctx context.Context, each *patient, needs Needs) []Finding {
	var found []Finding
	all := make([]addr.Address, 0, len(each.nodes))
	for _, x := range each.nodes {
		all = append(all, x.Addr)
	}
	add := func(check, level, what, advice string) {
		found = append(found, Finding{Where: each.name, Check: check, Level: level, Found: what, Advice: advice, Objects: slices.Clone(all)})
	}
	if q, ok := each.host.(Prober); ok {
		w := wantsOf(each.nodes, needs)
		before := time.Now()
		out, err := q.Probe(ctx, w.script(each.host.Root()))
		after := time.Now()
		facts, parsed := parseFacts(string(out))
		switch {
		case err == nil && parsed != nil:
			err = parsed
			fallthrough
		case err != nil:
			add("host", LevelFail, err.Error(), "")
		default:
			each.ahead = facts.clock.span(before, after)
			judge(facts, w, p.room(ctx, each), add)
			p.architecture(ctx, each.host, add)
			if each.name != ThisMachine {
				clock(each.ahead, add)
				serviceManager(facts, add)
			}
		}
	}
	for _, x := range each.nodes {
		all = []addr.Address{x.Addr}
		p.examinePort(ctx, x, add)
	}
	return found
}

// architecture tells whether there is a program for a host.
func (p *Nodes) architecture(ctx context.Context, host Host, add func(check, level, what, advice string)) {
	arch, err := host.Arch(ctx)
	if err == nil {
		_, _, err = p.program(arch)
	}
	if err != nil {
		add("architecture", LevelFail, err.Error(), "")
		return
	}
	add("architecture", LevelOK, cmp.Or(arch, runtime.GOARCH), "")
}

// sameEndpoint compares, however an address is written.
func sameEndpoint(a, b string) bool {
	if a == b {
		return true
	}
	at, err := netip.ParseAddrPort(a)
	other, otherErr := netip.ParseAddrPort(b)
	return err == nil && otherErr == nil && at == other
}

// examinePort tells whether a node's agent has its port, or could have it.
func (p *Nodes) examinePort(ctx context.Context, x examinee, add func(check, level, what, advice string)) {
	now := x.node.Endpoint
	if x.site.conf != nil {
		now = cmp.Or(x.site.conf.Address, now)
	}
	host, port, err := listenAddress(x.node)
	if err != nil {
		add("port", LevelFail, err.Error(), "")
		return
	}
	endpoint := now
	switch host = cmp.Or(host, hostOf(now)); {
	case host != "" && port != 0: // where the definition moves it, the new one
		endpoint = joinPort(host, port)
	case host != "" && now == "" && p.hosts.FirstPort == p.hosts.LastPort:
		endpoint = joinPort(host, p.hosts.FirstPort)
	}
	if endpoint == "" {
		return // chosen among free ones when it is made
	}
	if x.ID != "" && (now == "" || sameEndpoint(endpoint, now)) { // also where its directory is gone under it
		pid, err := x.site.host.Alive(ctx, x.site.dir)
		if err == nil && pid > 0 {
			add("port", LevelOK, fmt.Sprintf("%s: the agent of %s has it", endpoint, x.Addr), "")
			return
		}
	}
	free, err := x.site.host.FreePort(ctx, endpoint)
	other := slices.IndexFunc(p.env.Nodes.All(), func(e Entry) bool { return e.Endpoint == endpoint && e.NodeID != x.ID })
	switch {
	case err != nil:
		add("port", LevelFail, err.Error(), "")
	case !free && other >= 0: // which it follows, or the definition is wrong
		add("port", LevelOK, fmt.Sprintf("%s: a node of this cluster has it, %s", endpoint, p.env.Nodes.All()[other].Name), "")
	case !free:
		add("port", LevelFail, fmt.Sprintf("%s is taken by another program", endpoint), fmt.Sprintf("End what listens there (ss -lntup), or give %s another port", x.Addr))
	default:
		add("port", LevelOK, endpoint+" is free", "")
	}
}

// clock judges a host's clock against this machine's.
func clock(s clockSpan, add func(check, level, what, advice string)) {
	if !s.known {
		add("clock", LevelWarn, "can't be read closely enough", "")
		return
	}
	off := s.off()
	what := fmt.Sprintf("%s from this machine's", about(off))
	if off == 0 {
		what = "as this machine's"
	}
	const advice = "Keep both by NTP (chrony, systemd-timesyncd)"
	switch {
	case off > clockFail:
		add("clock", LevelFail, what+": certificates that are made here are not valid there", advice)
	case off > clockWarn:
		add("clock", LevelWarn, what, advice)
	default:
		add("clock", LevelOK, what, "")
	}
}

// off is how far a clock is away for sure.
func (s clockSpan) off() time.Duration { return max(s.from, -s.to, 0) }

func about(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// clocks compares hosts with one another.
func clocks(patients []*patient) []Finding {
	var first, last *patient
	var all []addr.Address
	hosts := 0
	for _, p := range patients {
		if !p.ahead.known {
			continue
		}
		hosts++
		for _, x := range p.nodes {
			all = append(all, x.Addr)
		}
		if first == nil || p.ahead.to < first.ahead.to {
			first = p
		}
		if last == nil || p.ahead.from > last.ahead.from {
			last = p
		}
	}
	if hosts < 2 {
		return nil
	}
	apart := max(last.ahead.from-first.ahead.to, 0)
	f := Finding{Where: "between hosts", Check: "clocks", Level: LevelOK, Found: "as one", Objects: all}
	if apart > 0 {
		f.Found = fmt.Sprintf("%s is %s ahead of %s", last.name, about(apart), first.name)
	}
	switch {
	case apart > clockFail:
		f.Level = LevelFail
	case apart > clockWarn:
		f.Level = LevelWarn
	}
	if f.Level != LevelOK {
		f.Advice = "Keep them by NTP (chrony, systemd-timesyncd)"
	}
	return []Finding{f}
}

// wants are what one host is asked for.
type wants struct {
	fence    []string
	programs map[string]string
	devices  []string // watchdogs
	reset    bool
	tun      bool
	owners   bool     // a node there may own groups
	dirs     []string // of nodes, below the host's root
}

func wantsOf(nodes []examinee, needs Needs) wants {
	w := wants{fence: needs.FenceAgents}
	for _, x := range nodes {
		if x.site != nil && x.site.dir != "" {
			w.dirs = append(w.dirs, x.site.dir)
		}
		if x.node.Watchdog != "" && !slices.Contains(w.devices, x.node.Watchdog) {
			w.devices = append(w.devices, x.node.Watchdog)
		}
		w.reset = w.reset || x.node.Reset == spec.ResetSysrq
		w.owners = w.owners || !x.node.Witness()
	}
	if w.owners {
		w.tun, w.programs = needs.Addresses, needs.Programs
	}
	return w
}
