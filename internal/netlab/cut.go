package netlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Kinds of faults.
const (
	FaultCut     = "cut"     // nothing gets from From to To; one of them may be empty: anyone
	FaultIsolate = "isolate" // nothing gets from or to From
	FaultLoss    = "loss"    // Percent of the frames from From to To (both empty: of all) are lost
)

// Fault is something that the switch does to frames. From and To are seats'
// keys.
type Fault struct {
	Kind    string  `json:"kind"`
	From    string  `json:"from,omitempty"`
	To      string  `json:"to,omitempty"`
	Percent float64 `json:"percent,omitempty"`
	Network string  `json:"network,omitempty"` // name; "": on all
}

func (f Fault) String() string {
	if f.Network == "" {
		return f.text()
	}
	return f.text() + " on network " + f.Network
}

func (f Fault) text() string {
	switch {
	case f.Kind == FaultCut && f.To == "":
		return fmt.Sprintf("nothing gets from %s to anyone", f.From)
	case f.Kind == FaultCut && f.From == "":
		return fmt.Sprintf("nothing gets to %s", f.To)
	case f.Kind == FaultCut:
		return fmt.Sprintf("nothing gets from %s to %s", f.From, f.To)
	case f.Kind == FaultIsolate:
		return fmt.Sprintf("nothing gets from or to %s", f.From)
	case f.From == "":
		return fmt.Sprintf("%g%% of all frames are lost", f.Percent)
	}
	return fmt.Sprintf("%g%% of the frames from %s to %s are lost", f.Percent, f.From, f.To)
}

// The faults are rules of the bridge family in the switch's namespace, so that
// healing is one flush and the kernel forgets them with the namespace. Each
// carries its Fault in its user data.
const (
	tableName = "clusterplan"
	chainName = "lab"
	lossScale = 10_000 // of a random number: hundredths of a percent
)

func faultTable() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
}

func faultChain(t *nftables.Table) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return &nftables.Chain{Name: chainName, Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(0), Policy: &policy}
}

// Inflict adds faults, all of them at once.
func (l *Lab) Inflict(faults ...Fault) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.Record()
	if err != nil {
		return err
	}
	for _, f := range faults {
		for _, key := range []string{f.From, f.To} {
			if _, ok := r.Seats[key]; !ok && key != "" {
				return fmt.Errorf("the network lab has no %s", key)
			}
		}
		if names := r.Networks(); f.Network != "" && !slices.Contains(names, f.Network) {
			return fmt.Errorf("the network lab has no network %s; it has %s", f.Network, strings.Join(names, ", "))
		}
		if f.Kind == FaultLoss && !(f.Percent > 0 && f.Percent <= 100) {
			return fmt.Errorf("a loss of %g%% is none; give a number above 0, at most 100", f.Percent)
		}
	}
	return Do(r.Switch, func() error {
		c, err := nftables.New()
		if err != nil {
			return explain("open nf_tables", err)
		}
		table := c.AddTable(faultTable())
		chain := c.AddChain(faultChain(table))
		for _, f := range faults {
			for _, e := range f.match(r) {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, UserData: f.mark(),
					Exprs: append(e, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
			}
		}
		return explain("add rules to the switch (nf_tables, bridge family)", c.Flush())
	})
}

// Heal ends all faults, and plugs in what was unplugged.
func (l *Lab) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.Record()
	if err != nil {
		return err
	}
	return Do(r.Switch, func() error {
		c, err := nftables.New()
		if err != nil {
			return explain("open nf_tables", err)
		}
		// The table is added first: one that is not there can't be deleted.
		c.DelTable(c.AddTable(faultTable()))
		if err := explain("remove the switch's rules", c.Flush()); err != nil {
			return err
		}
		for key, s := range r.Seats {
			for _, w := range s.wires() {
				if !exists(s.Namespace) {
					break
				}
				if err := up(w.Port); err != nil {
					return fmt.Errorf("plug in %s: %w", key, err)
				}
			}
		}
		return nil
	})
}

// Faults are those that there are, each once, in the order in which they came.
func (l *Lab) Faults() ([]Fault, error) {
	r, err := l.Record()
	if err != nil {
		return nil, err
	}
	var out []Fault
	return out, Do(r.Switch, func() error {
		c, err := nftables.New()
		if err != nil {
			return explain("open nf_tables", err)
		}
		tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
		if err != nil {
			return explain("list the switch's rules", err)
		}
		if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }) {
			return nil
		}
		table := faultTable()
		rules, err := c.GetRules(table, faultChain(table))
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return explain("list the switch's rules", err)
		}
		for _, rule := range rules {
			if f, ok := readMark(rule.UserData); ok && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
		return nil
	})
}

// match is what frames have to be like, a rule each: a port of the switch is on
// one network, so that who is cut on all has a rule for each.
func (f Fault) match(r Record) [][]expr.Any {
	switch {
	case f.Kind == FaultIsolate:
		return append(Fault{Kind: FaultCut, From: f.From, Network: f.Network}.match(r), Fault{Kind: FaultCut, To: f.From, Network: f.Network}.match(r)...)
	case f.From == "" && f.To == "" && f.Network == "":
		return [][]expr.Any{f.lossy(nil)}
	case f.From == "" && f.To == "":
		// From each port: not every kernel can match the bridge.
		var rules [][]expr.Any
		for _, key := range slices.Sorted(maps.Keys(r.Seats)) {
			rules = append(rules, Fault{Kind: f.Kind, From: key, Percent: f.Percent, Network: f.Network}.match(r)...)
		}
		return rules
	}
	var rules [][]expr.Any
	for _, network := range r.Networks() {
		if f.Network != "" && network != f.Network {
			continue
		}
		var e []expr.Any
		missing := false // it isn't on that network
		side := func(key expr.MetaKey, seat string) {
			if seat == "" {
				return
			}
			w, ok := r.wire(seat, network)
			missing = missing || !ok
			name := make([]byte, unix.IFNAMSIZ)
			copy(name, w.Port)
			e = append(e, &expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name})
		}
		side(expr.MetaKeyIIFNAME, f.From)
		side(expr.MetaKeyOIFNAME, f.To)
		if !missing {
			rules = append(rules, f.lossy(e))
		}
	}
	return rules
}

// lossy has a loss's rule hit some frames only.
func (f Fault) lossy(e []expr.Any) []expr.Any {
	if f.Kind != FaultLoss {
		return e
	}
	// Random numbers are compared byte by byte, so in network order.
	limit := binary.BigEndian.AppendUint32(nil, uint32(math.Round(f.Percent*lossScale/100)))
	return append(e,
		&expr.Numgen{Register: 1, Modulus: lossScale, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: limit})
}

// mark is a Fault as a rule's user data: at most 256 bytes, so names that are
// longer than any sane one are cut, and the fault then is not listed.
func (f Fault) mark() []byte {
	text := strings.Join([]string{f.Kind, f.From, f.To, strconv.FormatFloat(f.Percent, 'g', -1, 64), f.Network}, "\x1f")
	return []byte(text)[:min(len(text), unix.NFT_USERDATA_MAXLEN)]
}

func readMark(data []byte) (Fault, bool) {
	parts := bytes.Split(data, []byte{0x1f})
	if len(parts) == 4 { // of a program from before there were several networks
		parts = append(parts, nil)
	}
	if len(parts) != 5 {
		return Fault{}, false
	}
	percent, err := strconv.ParseFloat(string(parts[3]), 64)
	return Fault{Kind: string(parts[0]), From: string(parts[1]), To: string(parts[2]), Percent: percent, Network: string(parts[4])}, err == nil
}

// Unplug takes a seat's links from the switch, or those on some networks (by
// name): unlike a cut, it sees that (no carrier). Plug and Heal end it.
func (l *Lab) Unplug(key string, networks ...string) error { return l.port(key, false, networks) }

// Plug ends Unplug.
func (l *Lab) Plug(key string, networks ...string) error { return l.port(key, true, networks) }
