package confdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// groupSpec is a group with its resources, as the cluster keeps it.
func groupSpec(req providers.ApplyRequest) (spec.Group, error) {
	var g spec.Group
	if err := schema.Decode(req.Planned, &g); err != nil {
		return g, err
	}
	g.ID, g.Addr, g.ManagedBy = req.ID, req.Addr, spec.ManagedBy
	types := resourceTypes()
	for _, r := range req.Resources {
		typ, ok := types[r.Type]
		if !ok {
			return g, fmt.Errorf("%s: there is no resource type %q", r.Addr, r.Type)
		}
		s := spec.Resource{ID: r.ID, Addr: r.Addr, Name: r.Addr.DefaultName()}
		if err := schema.DecodeResource(r.Value, typ, &s); err != nil {
			return g, fmt.Errorf("%s: %w", r.Addr, err)
		}
		g.Resources = append(g.Resources, s)
	}
	return g, nil
}

// groupObject is the way back.
func groupObject(g spec.Group) (*providers.Object, []providers.Resource, error) {
	resources := g.Resources
	g.Resources = nil
	v, err := encode(g, groupShape())
	if err != nil {
		return nil, nil, fmt.Errorf("read group %s: %w", g.Name, err)
	}
	types := resourceShapes()
	var out []providers.Resource
	for _, r := range resources {
		typ, ok := types[r.Type]
		if !ok {
			return nil, nil, fmt.Errorf("read group %s: its resource %s is of the type %q, which this program does not know; a newer one made it", g.Name, r.Name, r.Type)
		}
		value, err := encodeResource(r, typ)
		if err != nil {
			return nil, nil, fmt.Errorf("read group %s: resource %s: %w", g.Name, r.Name, err)
		}
		out = append(out, providers.Resource{Addr: r.Addr, ID: r.ID, Type: r.Type, Value: value})
	}
	return &providers.Object{ID: g.ID, Value: v}, out, nil
}

// applyGroup puts or deletes a group, all of it in one transaction, and waits
// until it has settled.
func (p *Provider) applyGroup(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	told := ""
	progress := func(text string) { // once each
		if text != told && req.Progress != nil {
			req.Progress(text)
		}
		told = text
	}
	if req.Planned == cty.NilVal || req.Planned.IsNull() {
		return providers.ApplyResponse{}, p.deleteGroup(ctx, req, progress)
	}
	g, err := groupSpec(req)
	if err != nil {
		return providers.ApplyResponse{}, err
	}
	var before *client.ConfigGroup
	if req.Prior != nil {
		if before, err = p.oldGroup(ctx, g, req.Adopt); err != nil {
			return providers.ApplyResponse{}, err
		}
	}
	if err := p.write(ctx, func(c *client.Client) error {
		_, err := c.PutGroup(ctx, g, 0) // its id is its own: parallel puts don't meet
		return err
	}); err != nil {
		return providers.ApplyResponse{}, fmt.Errorf("put group %s: %w", g.Name, err)
	}
	o, resources, err := groupObject(g)
	if err != nil {
		return providers.ApplyResponse{}, err
	}
	res := providers.ApplyResponse{Object: o, Resources: resources}
	if req.Adopt && before != nil && adopted(before.Spec, g) {
		return res, nil
	}
	if err := p.settle(ctx, g, before, progress); err != nil {
		// It is in the database, as planned: the answer goes with the error.
		return res, fmt.Errorf("group %s: %w", g.Name, err)
	}
	return res, nil
}

// oldGroup is the group as it was before this change; nil: it is new. One that
// someone else manages is refused, unless it is to be taken over.
func (p *Provider) oldGroup(ctx context.Context, g spec.Group, adopt bool) (*client.ConfigGroup, error) {
	db, err := p.recent(ctx)
	if err != nil {
		return nil, err
	}
	old := db.groups[g.ID]
	if old != nil && old.Spec.ManagedBy != spec.ManagedBy && !adopt {
		return nil, foreign(old.Spec)
	}
	return old, nil
}

func foreign(g spec.Group) error {
	return fmt.Errorf("group %s is managed by %q, not by clusterplan: it is left alone; take it over with an import block, or delete it there and apply again", g.Name, g.ManagedBy)
}

func (p *Provider) deleteGroup(ctx context.Context, req providers.ApplyRequest, progress func(string)) error {
	p.forget()
	db, err := p.database(ctx)
	if err != nil {
		return err
	}
	old := db.groups[req.ID]
	if db.none || (old == nil && db.Quorum) {
		return nil
	}
	if !db.Quorum {
		return fmt.Errorf("delete group %s: %w: the nodes that answer are no majority", req.Addr, providers.ErrNoQuorum)
	}
	name := req.ID
	if old != nil {
		if name = old.Spec.Name; old.Spec.ManagedBy != spec.ManagedBy {
			return foreign(old.Spec)
		}
	}
	if err := p.write(ctx, func(c *client.Client) error {
		_, err := c.DeleteGroup(ctx, req.ID, 0)
		return err
	}); err != nil {
		return fmt.Errorf("delete group %s: %w", name, err)
	}
	progress("stopping")
	quiet := 30 * time.Second
	if old != nil {
		quiet += pendingTimeout(old.Spec)
	}
	last := "nobody tells of it"
	gone, err := p.watch(ctx, quiet, func(st *client.Status) (bool, string) {
		i := slices.IndexFunc(st.Groups, func(g client.StatusGroup) bool { return g.Name == name })
		if i < 0 {
			return true, ""
		}
		last = pending(st.Groups[i])
		progress(last)
		return false, last
	})
	p.forget()
	if err == nil && !gone {
		err = fmt.Errorf("its owner has not stopped it for %s: %s; mend what keeps it from stopping there, and apply again", quiet, last)
	}
	if err != nil {
		return fmt.Errorf("delete group %s: %w", name, err)
	}
	return nil
}

// pending says in a few words what a group waits for.
func pending(g client.StatusGroup) string {
	var words []string
	for _, r := range g.Resources {
		if r.State != spec.StateOnline && r.State != spec.StateOffline {
			word := r.Name + ": " + r.State
			if r.Reason != "" {
				word += " (" + r.Reason + ")"
			}
			words = append(words, word)
		}
	}
	if len(words) > 0 {
		return strings.Join(words, ", ")
	}
	if g.Reason != "" {
		return g.State + ": " + g.Reason
	}
	return g.State
}

// pendingTimeout is the longest that one of a group's resources may take
// between two signs of progress.
func pendingTimeout(g spec.Group) time.Duration {
	longest := time.Duration(0)
	for _, r := range g.Resources {
		d := r.PendingTimeout.D()
		if d == 0 {
			d = 3 * time.Minute
		}
		longest = max(longest, d)
	}
	return longest
}

// Waiting for a group.
const (
	// restartGrace is how long an online group may take until a change that
	// restarts one of its resources shows.
	restartGrace = time.Second
	// failedGrace is how long a failed group may take until it is tried again
	// or elsewhere; one that stays failed for that long has failed.
	failedGrace = 5 * time.Second
	slack       = 10 * time.Second
)

// settle waits until a group that was put is online, or has failed for good.
func (p *Provider) settle(ctx context.Context, g spec.Group, before *client.ConfigGroup, progress func(string)) error {
	ordered := before != nil && before.Want == spec.WantOffline && before.Spec.PersistentState == g.PersistentState
	if g.Priority == 0 || g.PersistentState == spec.WantOffline || ordered {
		return nil // nobody starts it
	}
	touched := before != nil && before.State == spec.StateOnline && restarts(before.Spec, g)
	start, failedSince := time.Now(), time.Time{}
	var failure error
	last := "the cluster does not tell of it"
	ok, err := p.watch(ctx, pendingTimeout(g)+slack, func(st *client.Status) (bool, string) {
		i := slices.IndexFunc(st.Groups, func(s client.StatusGroup) bool { return s.Name == g.Name })
		if i < 0 {
			return false, ""
		}
		s := st.Groups[i]
		online := s.State == spec.StateOnline && !slices.ContainsFunc(s.Resources, func(r client.StatusResource) bool { return r.State != spec.StateOnline })
		if !online {
			touched = false // what was asked for shows
		}
		if online && (!touched || time.Since(start) > restartGrace) {
			return true, ""
		}
		last = pending(s)
		progress(last)
		if s.State != spec.StateFailed {
			failedSince = time.Time{}
		} else if failedSince.IsZero() {
			failedSince = time.Now()
		} else if time.Since(failedSince) > failedGrace || s.Reason != "" {
			failure = failed(s)
			return true, ""
		}
		return false, fmt.Sprint(s.Owner, s.Epoch, s.State, s.Resources)
	})
	p.forget()
	switch {
	case err != nil:
		return err
	case failure != nil:
		return failure
	case !ok:
		return fmt.Errorf("it is in the database, but not online: %s; see clusterplan status and logs", last)
	}
	return nil
}

// failed says why a group failed.
func failed(s client.StatusGroup) error {
	var words []string
	for _, r := range s.Resources {
		if r.State == spec.StateFailed {
			words = append(words, fmt.Sprintf("%s: %s", r.Name, r.Reason))
		}
	}
	if s.Reason != "" {
		words = append(words, s.Reason)
	}
	where := ""
	if s.Owner != "" {
		where = " on " + s.Owner
	}
	return fmt.Errorf("it is in the database, but failed%s: %s; clusterplan events and clusterplan logs %s tell more", where, strings.Join(words, "; "), s.Name)
}

// restarts tells whether a change has the owner stop or start a resource.
func restarts(old, g spec.Group) bool {
	if len(old.Resources) != len(g.Resources) {
		return true
	}
	for _, r := range g.Resources {
		was, ok := old.Resource(r.Name)
		if !ok || was.ID != r.ID || was.Type != r.Type || fmt.Sprint(was.Attributes) != fmt.Sprint(r.Attributes) {
			return true
		}
	}
	return false
}

// Plan of cluster and group: nothing is computed, everything changes in place.
func (p *Provider) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	res := providers.PlanResponse{Impact: spec.ImpactNone, Planned: req.Config}
	deleted := req.Config == cty.NilVal || req.Config.IsNull()
	if deleted {
		res.Planned = cty.NilVal
	}
	if req.Prior != nil {
		res.Drift = req.Prior.Health
	}
	if req.Type != addr.TypeCluster || deleted {
		return res, nil
	}
	if req.Prior == nil || req.Prior.Value == cty.NilVal {
		res.Phases = []string{providers.PhaseBootstrap}
		return res, nil
	}
	if same := req.Prior.Value.Equals(req.Config); !same.IsKnown() || same.False() {
		res.Phases = []string{providers.PhaseUpdate}
		res.Impact = clusterImpact(req.Prior.Value, req.Config)
		if quorum := "quorum"; !unchanged(req.Prior.Value, req.Config, quorum) {
			old, err := clusterSpec("", req.Prior.Value)
			if err != nil {
				return res, err
			}
			var next spec.Cluster
			if err := schema.DecodeKnown(req.Config, &next); err != nil {
				return res, err
			}
			if why := spec.QuorumChange(old.Quorum, next.Quorum); why != "" {
				attr := "model"
				if old.Quorum.Model == next.Quorum.Model {
					attr = "device"
				}
				return res, cty.GetAttrPath(quorum).GetAttr(attr).NewErrorf("%s", why)
			}
		}
	}
	return res, nil
}

func clusterImpact(prior, config cty.Value) spec.Impact {
	switch {
	case !unchanged(prior, config, "quorum"):
		return spec.ImpactMembership
	case !unchanged(prior, config, "heartbeat"):
		return spec.ImpactTimings
	}
	return spec.ImpactNone
}

func unchanged(a, b cty.Value, name string) bool {
	eq := a.GetAttr(name).Equals(b.GetAttr(name))
	return eq.IsKnown() && eq.True()
}

// Apply of cluster, fence and group.
func (p *Provider) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	if err := ctx.Err(); err != nil {
		return providers.ApplyResponse{}, err
	}
	if req.Type == addr.TypeCluster {
		return p.applyCluster(ctx, req)
	}
	if req.Type == addr.TypeFence {
		return p.applyFence(ctx, req)
	}
	return p.applyGroup(ctx, req)
}

// Read of cluster, fence and group.
func (p *Provider) Read(ctx context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	if len(p.env.Nodes.All()) == 0 {
		return providers.ReadResponse{}, nil // no node ever ran that could hold it
	}
	db, err := p.database(ctx)
	if err != nil {
		return providers.ReadResponse{}, fmt.Errorf("read %s: %w", req.Addr, err)
	}
	if db.none {
		return providers.ReadResponse{}, nil
	}
	res := providers.ReadResponse{AsOf: db.Revision, NoQuorum: !db.Quorum}
	if req.Type == addr.TypeCluster {
		res.Object, err = clusterObject(db.Cluster)
		return res, err
	}
	if f := db.fences[req.ID]; f != nil && req.Type == addr.TypeFence {
		if f.Spec.ManagedBy != spec.ManagedBy {
			return res, foreignFence(f.Spec)
		}
		res.Object, err = readFence(f.Spec, req.Prior)
		return res, err
	}
	g := db.groups[req.ID]
	switch {
	case g == nil && !db.Quorum:
		return res, fmt.Errorf("read %s: %w: the newest copy that answers does not hold it, and may be behind", req.Addr, providers.ErrUnreachable)
	case g == nil:
		return res, nil
	case g.Spec.ManagedBy != spec.ManagedBy:
		return res, foreign(g.Spec)
	}
	res.Object, res.Resources, err = groupObject(g.Spec)
	return res, err
}
