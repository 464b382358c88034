package api

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// checkpointOf finds the group and resource of a path, and checks that the caller
// may have them.
func (s *server) checkpointOf(c *call) (group, resource string, err error) {
	if group, err = s.groupID(c, c.r.PathValue("group")); err != nil {
		return "", "", err
	}
	return group, c.r.PathValue("resource"), c.ownGroup(group)
}

// asOwner reads the epoch that a keeper speaks under; one that is over is refused
// here and, in case it ends meanwhile, where the command is applied.
func (s *server) asOwner(c *call, group string) (uint64, error) {
	epoch, err := headerNumber(c.r.Header, client.HeaderEpoch)
	if err != nil {
		return 0, err
	}
	if epoch == 0 {
		return 0, bad("%s is missing: a checkpoint is written by its group's owner, under its epoch", client.HeaderEpoch)
	}
	var now uint64
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		if g := st.Groups[group]; g != nil {
			now = g.Owner.Epoch
		}
	}); err != nil {
		return 0, err
	}
	if now != epoch {
		return 0, &client.Error{Status: http.StatusConflict, Code: "fenced",
			Message: fmt.Sprintf("the group is at epoch %d here, not %d", now, epoch), Hint: "stop: another node may run the group by now"}
	}
	return epoch, nil
}

// checkpoints answers what is kept of a group's resources.
func (s *server) checkpoints(c *call) error {
	group, _, err := s.checkpointOf(c)
	if err != nil {
		return err
	}
	out := client.Checkpoints{FormatVersion: client.FormatVersion, Checkpoints: []client.Checkpoint{}}
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		g := st.Groups[group]
		if g == nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(g.Checkpoints)) {
			out.Checkpoints = append(out.Checkpoints, wireCheckpoint(st, name, g.Checkpoints[name]))
		}
	}); err != nil {
		return err
	}
	return c.answer(out)
}

func wireCheckpoint(st *confdb.State, resource string, cp *confdb.Checkpoint) client.Checkpoint {
	out := client.Checkpoint{FormatVersion: client.FormatVersion, Resource: resource, Epoch: cp.Epoch, Node: nameOf(st, cp.Node),
		Revision: cp.Revision, Time: cp.Time, Size: cp.Size, Files: make([]client.CheckpointFile, len(cp.Files))}
	for i, f := range cp.Files {
		out.Files[i] = client.CheckpointFile(f)
	}
	return out
}

// checkpoint answers one resource's, with epoch 0 if there is none yet. With an
// epoch in its header it is refused once that is over, so that a start never
// rests on another ownership's.
func (s *server) checkpoint(c *call) error {
	group, resource, err := s.checkpointOf(c)
	if err != nil {
		return err
	}
	if c.r.Header.Get(client.HeaderEpoch) != "" {
		if _, err := s.asOwner(c, group); err != nil {
			return err
		}
	}
	out := client.Checkpoint{FormatVersion: client.FormatVersion, Resource: resource, Files: []client.CheckpointFile{}}
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		if g := st.Groups[group]; g != nil && g.Checkpoints[resource] != nil {
			out = wireCheckpoint(st, resource, g.Checkpoints[resource])
		}
	}); err != nil {
		return err
	}
	return c.answer(out)
}

// chunk answers a piece of a resource's checkpoint, of none other's.
func (s *server) chunk(c *call) error {
	group, resource, err := s.checkpointOf(c)
	if err != nil {
		return err
	}
	hash := c.r.PathValue("hash")
	var data []byte
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		g := st.Groups[group]
		if g == nil || g.Checkpoints[resource] == nil {
			return
		}
		for _, f := range g.Checkpoints[resource].Files {
			if slices.Contains(f.Chunks, hash) && st.Chunks[hash] != nil {
				data = st.Chunks[hash].Data // never changed in place
			}
		}
	}); err != nil {
		return err
	}
	if data == nil {
		return &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("the checkpoint of resource %q has no chunk %.64q", resource, hash)}
	}
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = c.w.Write(data)
	return nil
}

func (s *server) putChunk(c *call) error {
	group, resource, err := s.checkpointOf(c)
	if err != nil {
		return err
	}
	epoch, err := s.asOwner(c, group)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(c.r.Body, confdb.MaxChunk+1))
	if err != nil {
		return bad("the request's body can't be read: %v", err)
	}
	if len(data) == 0 || len(data) > confdb.MaxChunk {
		return tooLarge(fmt.Sprintf("a chunk has 1 to %d bytes", confdb.MaxChunk))
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.PutChunk = &confdb.PutChunk{Group: group, Resource: resource, Epoch: epoch, Data: data}
	return s.commit(c, cmd)
}

func (s *server) putCheckpoint(c *call) error {
	group, resource, err := s.checkpointOf(c)
	if err != nil {
		return err
	}
	epoch, err := s.asOwner(c, group)
	if err != nil {
		return err
	}
	var in client.CheckpointFiles
	if err := c.body(&in); err != nil {
		return err
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	p := &confdb.PutCheckpoint{Group: group, Resource: resource, Epoch: epoch, Files: make([]confdb.CheckpointFile, len(in.Files))}
	for i, f := range in.Files {
		p.Files[i] = confdb.CheckpointFile(f)
	}
	cmd.PutCheckpoint = p
	return s.commit(c, cmd)
}

// checkpointProblem has the event log say why a checkpoint is not kept.
func (s *server) checkpointProblem(c *call) error {
	group, resource, err := s.checkpointOf(c)
	if err != nil {
		return err
	}
	if _, err := s.asOwner(c, group); err != nil {
		return err
	}
	var in client.CheckpointProblem
	if err := c.body(&in); err != nil {
		return err
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	e := confdb.Event{Node: s.b.Facts().Name, Kind: confdb.KindCheckpointFailed}
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		if g := st.Groups[group]; g != nil {
			if r, ok := g.Spec.Resource(resource); ok {
				e.Object = r.Addr.String()
				e.Text = fmt.Sprintf("the checkpoint of resource %s in group %s is not kept: %s", resource, g.Spec.Name, clean(in.Text))
			}
		}
	}); err != nil {
		return err
	}
	if e.Object == "" {
		return unknown("resource", resource, nil)
	}
	cmd.Event = &e
	return s.commit(c, cmd)
}
