package api

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// owner answers who runs a group, or streams that whenever it changes. It is
// this node's copy: an owner's own agent has applied what made it one.
func (s *server) owner(c *call) error {
	id, err := s.groupID(c, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	look := func() (o client.Owner, revision uint64, err error) {
		found := false
		err = s.read(c.ctx, func(st *confdb.State, ms member.Status) {
			revision = st.Revision
			g := st.Groups[id]
			if found = g != nil; !found {
				return
			}
			here := g.Owner.Node == s.b.Facts().NodeID
			o = client.Owner{FormatVersion: client.FormatVersion, Group: g.Spec.Name, Owner: nameOf(st, g.Owner.Node), Epoch: g.Owner.Epoch,
				Since: g.Owner.Since, State: g.State, Here: here, Lease: here && ms.LeaseEnd > boottime.Now(),
				Leaving: g.Owner.Node != "" && (g.Handover != nil || g.Deleting != nil || g.Want == spec.WantOffline)}
		})
		if err == nil && !found {
			err = &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("the group %s is gone", c.r.PathValue("id"))}
		}
		return o, revision, err
	}
	if !strings.Contains(c.r.Header.Get("Accept"), "text/event-stream") {
		o, _, err := look()
		if err != nil {
			return err
		}
		return c.answer(o)
	}
	var told client.Owner
	return s.follow(c, 0, func(since uint64) ([]sseLine, uint64, error) {
		o, revision, err := look()
		if err != nil {
			return nil, since, err
		}
		same := o
		same.Lease, same.State = told.Lease, told.State // come and go without a change of ownership
		if same == told {
			return nil, revision, nil
		}
		told = o
		return []sseLine{{revision, o}}, revision, nil
	})
}
