package faultlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Row is a row of the failure matrix, as `plan --json` has it.
type Row struct {
	Fail   []string `json:"fail"`
	Zone   string   `json:"zone"`
	Device bool     `json:"device"`
	Quorum bool     `json:"quorum"`
	Groups []struct {
		Group  string  `json:"group"`
		From   *string `json:"from"`
		To     *string `json:"to"`
		State  string  `json:"state"`
		Reason string  `json:"reason"`
	} `json:"groups"`
}

// Name is what fails, for people.
func (r Row) Name() string {
	switch {
	case r.Device:
		return "the quorum device"
	case r.Zone != "":
		return "zone " + r.Zone
	}
	return strings.Join(r.nodes(), " and ")
}

// nodes are the names of those that fail.
func (r Row) nodes() []string {
	out := make([]string, len(r.Fail))
	for i, a := range r.Fail {
		out[i] = strings.TrimPrefix(a, "node.")
	}
	return out
}

// Took is how long a group was away because its node failed, from the fault to its
// program's start on another node, and how long the plan says that takes at most.
type Took struct {
	Group   string  `json:"group"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	MS      float64 `json:"ms"`
	WorstMS float64 `json:"worst_ms"`
	Ratio   float64 `json:"ratio"`
}

// Tried is a row that the cluster has been through.
type Tried struct {
	Scene   string  `json:"scene"`
	Fail    string  `json:"fail"`
	How     string  `json:"how"` // killed, cut off, moved away
	Quorum  bool    `json:"quorum"`
	Groups  []Took  `json:"groups"`
	StallMS float64 `json:"stall_ms"` // the machine as a whole stood still for so long meanwhile
}

// Late are the groups that were away for longer than the plan says, and than the
// machine as a whole stood still meanwhile.
func (t Tried) Late() []Took {
	return slices.DeleteFunc(slices.Clone(t.Groups), func(g Took) bool { return g.MS <= g.WorstMS+t.StallMS })
}

// Trial holds the failure matrix of a scene's plan to the scene's cluster: row by
// row, what the row says fails, and the groups have to go where it says.
type Trial struct {
	*Cluster
	Scene  Scene
	Rows   []Row // of the plan, made where all groups are at home
	watch  *Watch
	stalls *Stalls
	home   map[string]string // group -> the node on which it rests while nothing fails
	worst  map[string]time.Duration
	turn   int
}

// Try brings a scene's cluster up in dir and reads its plan; Close ends it.
func Try(ctx context.Context, program, dir string, s Scene) (t *Trial, err error) {
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	c, err := Up(ctx, Config{Program: program, Dir: dir, Nodes: s.Nodes, Text: s.text(s, dir)})
	if err != nil {
		return nil, err
	}
	t = &Trial{Cluster: c, Scene: s, home: map[string]string{}, worst: map[string]time.Duration{}}
	addresses := make([]netip.Addr, len(s.Groups))
	for i := range s.Groups {
		addresses[i] = s.address(i)
	}
	if t.watch, err = NewWatch(c, addresses...); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	t.stalls = NewStalls()
	if err := t.plan(ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Close takes the cluster down.
func (t *Trial) Close() error {
	t.watch.Close()
	t.stalls.Close()
	return t.Down()
}

// plan waits until every group rests somewhere, and reads what the plan says.
func (t *Trial) plan(ctx context.Context) error {
	if _, err := t.calm(ctx, "every group is online", func(s client.Status) bool {
		for _, g := range s.Groups {
			t.home[g.Name] = g.Owner
			if g.State != spec.StateOnline || !slices.Equal(t.holders(g.Name), []string{g.Owner}) {
				return false
			}
		}
		return s.Quorum.Have && len(s.Groups) == len(t.Scene.Groups) && allUp(s)
	}); err != nil {
		return err
	}
	text, err := exec.CommandContext(ctx, t.Program, "plan", "--json", t.Dir).Output()
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	var plan struct {
		Times []struct {
			Group string `json:"group"`
			Worst int64  `json:"worst_ms"`
		} `json:"failover_times"`
		Matrix struct {
			After struct {
				Rows []Row `json:"rows"`
			} `json:"after"`
		} `json:"failure_matrix"`
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	t.Rows = plan.Matrix.After.Rows
	for _, f := range plan.Times {
		t.worst[strings.TrimPrefix(f.Group, "group.")] = time.Duration(f.Worst) * time.Millisecond
	}
	return nil
}

func allUp(s client.Status) bool {
	return !slices.ContainsFunc(s.Nodes, func(n client.StatusNode) bool { return n.State != spec.NodeUp || n.PID == 0 || n.MonitorPID == 0 })
}

// holders are the nodes that have a group's address in the kernel.
func (t *Trial) holders(group string) []string {
	return t.watch.Holders(t.Scene.address(slices.Index(t.Scene.Groups, group)))
}

// quiet is how long what was waited for has to stay so: groups take less than that
// to go on, from one that has come up to those that depend on it.
const quiet = time.Second

// calm waits until what is wanted is so and stays so.
func (t *Trial) calm(ctx context.Context, what string, ok func(client.Status) bool) (client.Status, error) {
	var since time.Time
	return t.Until(ctx, what, func(s client.Status) bool {
		switch {
		case !ok(s):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > quiet
	})
}

// ErrDisturbed says that what happened was not the row: the cluster has lost nodes
// that nothing was done to, as it does where the machine stands still for long
// enough, or it saw those of the row go one after the other, and began to act on
// the first before it knew of the second.
var ErrDisturbed = errors.New("something else has happened")

// enoughFor is how long a row is given before somebody asks whether it is disturbed.
const enoughFor = 5 * time.Second

// Row has what the row says happen, compares, mends it, and has all groups go home.
func (t *Trial) Row(ctx context.Context, row Row) (Tried, error) {
	out, err := t.row(ctx, row)
	if err != nil {
		err = fmt.Errorf("%s, %s (%s): %w", t.Scene.Name, row.Name(), out.How, err)
	}
	if _, oerr := t.watch.Overlap(); oerr != nil || len(t.watch.Overlaps()) > 0 {
		err = errors.Join(err, oerr, fmt.Errorf("two nodes held an address at once: %s", strings.Join(t.watch.Overlaps(), "; ")))
	}
	if err != nil && !errors.Is(err, ErrDisturbed) {
		return out, err
	}
	return out, errors.Join(err, t.goHome(ctx, row, out.How))
}

func (t *Trial) row(ctx context.Context, row Row) (out Tried, err error) {
	out = Tried{Scene: t.Scene.Name, Fail: row.Name(), Quorum: row.Quorum, Groups: []Took{}}
	since := uint64(0)
	if all, err := t.Events(ctx, 0); err != nil {
		return out, err
	} else if len(all) > 0 {
		since = all[len(all)-1].ID
	}
	want := map[string]string{} // group -> who is to have it, "" nobody
	for group, owner := range t.home {
		want[group] = owner
	}
	for _, g := range row.Groups {
		name := strings.TrimPrefix(g.Group, "group.")
		if want[name] = ""; g.State == spec.StateOnline && g.To != nil {
			want[name] = strings.TrimPrefix(*g.To, "node.")
		}
	}
	t.stalls.Reset()
	began := time.Now()
	if out.How, err = t.fail(row); err != nil {
		return out, err
	}
	last, why, looked := "", "", began
	_, err = t.calm(ctx, "what the failure matrix says", func(s client.Status) bool {
		last = t.differs(row, want, s)
		if now := time.Now(); last != "" && now.Sub(began) > enoughFor && now.Sub(looked) > quiet {
			why, looked = t.disturbed(ctx, row, since, true), now
		}
		return last == "" || why != ""
	})
	if why == "" {
		why = t.disturbed(ctx, row, since, last != "")
	}
	if why != "" {
		return out, fmt.Errorf("%w: %s", ErrDisturbed, why)
	}
	if err != nil {
		return out, fmt.Errorf("%s: %w", last, err)
	}
	out.StallMS = float64(t.stalls.Longest().Microseconds()) / 1000
	return out, t.times(row, want, began, &out)
}

// How a row's nodes, or the device, are lost.
const (
	killed    = "killed"
	cutOff    = "cut off"
	movedAway = "moved away"
)

// fail has it happen, to all nodes at once.
func (t *Trial) fail(row Row) (how string, err error) {
	if row.Device {
		file := filepath.Join(t.Dir, device)
		return movedAway, os.Rename(file, file+".away")
	}
	if t.turn++; t.Scene.Killed == always || t.Scene.Killed == byTurns && t.turn%2 == 0 {
		done := make(chan error, len(row.Fail))
		for _, name := range row.nodes() {
			go func() {
				_, err := netlab.Signal(t.Namespace(name), syscall.SIGKILL)
				done <- err
			}()
		}
		for range row.Fail {
			err = errors.Join(err, <-done)
		}
		return killed, err
	}
	var cuts []netlab.Fault
	for _, name := range row.nodes() {
		cuts = append(cuts, Isolated(name, ""))
	}
	return cutOff, t.Lab.Inflict(cuts...)
}

// differs says in what the cluster is not as wanted; "": in nothing.
func (t *Trial) differs(row Row, want map[string]string, s client.Status) string {
	for _, group := range t.Scene.Groups {
		have := strings.Join(t.holders(group), " and ")
		if have != want[group] {
			return fmt.Sprintf("%s: the matrix says that %q has it, and %q has its address", group, want[group], have)
		}
	}
	if s.Quorum.Have != row.Quorum {
		return fmt.Sprintf("the matrix says quorum: %t, status %t", row.Quorum, s.Quorum.Have)
	}
	if !row.Quorum {
		return ""
	}
	for _, n := range s.Nodes {
		if lost := slices.Contains(row.nodes(), n.Name); lost != (n.State != spec.NodeUp) {
			return fmt.Sprintf("status says that %s is %s", n.Name, n.State)
		}
	}
	for _, g := range s.Groups {
		if online := g.State == spec.StateOnline; online != (want[g.Name] != "") || online && g.Owner != want[g.Name] {
			return fmt.Sprintf("%s: the matrix says that %q has it, status that it is %s on %q", g.Name, want[g.Name], g.State, g.Owner)
		}
	}
	return ""
}

// disturbed says why what happened was not the row; "": it was. Without a quorum
// nobody counts: groups are down all the same. Those that were seen to go one after
// the other matter where the groups are elsewhere for it.
func (t *Trial) disturbed(ctx context.Context, row Row, since uint64, elsewhere bool) string {
	if !row.Quorum {
		return ""
	}
	events, err := t.Events(ctx, since)
	if err != nil {
		return err.Error()
	}
	var others []string
	var seen []time.Time
	for _, e := range events {
		switch {
		case e.Kind != "node_down":
		case slices.Contains(row.nodes(), e.Node):
			seen = append(seen, e.Time)
		default:
			others = append(others, e.Node)
		}
	}
	if len(others) > 0 {
		return "nothing was done to " + strings.Join(others, ", ") + ", and they were lost"
	}
	if elsewhere && slices.ContainsFunc(seen, func(at time.Time) bool { return !at.Equal(seen[0]) }) {
		return "they were seen to go one after the other"
	}
	return ""
}

// times reads from the programs' notes how long each group was away whose node
// failed, and makes sure that no other one was started.
func (t *Trial) times(row Row, want map[string]string, began time.Time, out *Tried) error {
	text, err := os.ReadFile(filepath.Join(t.Dir, starts))
	if err != nil {
		return err
	}
	came := map[string][]string{} // group -> nodes on which it was started since
	at := map[string]time.Time{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			return fmt.Errorf("a program has noted %q", line)
		}
		nanos, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return fmt.Errorf("a program has noted %q", line)
		}
		if when := time.Unix(0, nanos); when.After(began) {
			came[f[0]] = append(came[f[0]], f[1])
			at[f[0]] = when
		}
	}
	for _, group := range t.Scene.Groups {
		from, to := t.home[group], want[group]
		if to == "" || to == from {
			if len(came[group]) > 0 {
				return fmt.Errorf("%s: the matrix says that it stays as it is, and it was started on %s", group, strings.Join(came[group], ", "))
			}
			continue
		}
		if !slices.Equal(came[group], []string{to}) {
			return fmt.Errorf("%s: the matrix says that it goes to %s, and it was started on %s", group, to, strings.Join(came[group], ", "))
		}
		if !slices.Contains(row.nodes(), from) {
			continue // it has made room
		}
		took := Took{Group: group, From: from, To: to, MS: float64(at[group].Sub(began).Microseconds()) / 1000, WorstMS: float64(t.worst[group].Milliseconds())}
		if took.WorstMS > 0 {
			took.Ratio = took.MS / took.WorstMS
		}
		out.Groups = append(out.Groups, took)
	}
	return nil
}

// goHome mends what has failed and moves every group to where it was.
func (t *Trial) goHome(ctx context.Context, row Row, how string) error {
	if row.Device {
		file := filepath.Join(t.Dir, device)
		if err := os.Rename(file+".away", file); err != nil {
			return err
		}
	}
	if err := t.Lab.Heal(); err != nil {
		return err
	}
	if how == killed {
		if err := t.Apply(ctx); err != nil {
			return err
		}
	}
	var refused error // what came of the last order
	was, since, detours := "", time.Now(), 0
	ordered := map[string]bool{}
	order := func(verb string, words ...string) {
		if key := verb + words[0]; !ordered[key] {
			refused = t.Run(ctx, append([]string{verb, "--dir", t.Dir}, words...)...)
			ordered[key] = refused == nil // else perhaps another group has to go first
		}
	}
	_, err := t.calm(ctx, "every group is at home", func(s client.Status) bool {
		home := s.Quorum.Have && allUp(s)
		for _, n := range s.Nodes {
			if home && n.Quarantine != nil { // the lab's nodes are lost all the time
				order("resume", n.Name)
			}
		}
		whole, away, owners := home, []string{}, ""
		for _, g := range s.Groups {
			at := t.home[g.Name]
			owners += " " + g.Owner
			if g.Owner != at {
				away = append(away, g.Name)
			}
			home = home && g.State == spec.StateOnline && g.Owner == at && slices.Equal(t.holders(g.Name), []string{at})
		}
		if owners != was || !whole {
			was, since = owners, time.Now()
		}
		if whole && len(away) > 0 && time.Since(since) > quiet { // two are in each other's way: one of them goes elsewhere first
			refused = t.Run(ctx, "move", "--dir", t.Dir, away[detours%len(away)])
			detours++
			since = time.Now()
			clear(ordered)
		} else if whole {
			for _, g := range away {
				order("move", g, t.home[g])
			}
		}
		return home
	})
	if err != nil {
		return errors.Join(refused, err)
	}
	return nil
}
