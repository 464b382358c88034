package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A leader that was just elected may not know yet who holds the change lease: what
// changes the agreement waits until it does, and is refused to whom it is not.
func TestNewLeaderAsksForTheChangeLease(t *testing.T) {
	t.Parallel()
	less := request(2)
	less.Spec.Votes = 0
	anew := request(2)
	anew.ServerID = 22
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"DELETE", client.PathMembers + "/id2", nil},
		{"PUT", client.PathMembers + "/id2", less},
		{"POST", client.PathMembers, anew},
	} {
		f, h := formed(t)
		f.status.Driver.Ready = false
		select {
		case <-f.asked:
		default:
		}
		type answer struct {
			code int
			text string
		}
		answers := make(chan answer, 1)
		go func() {
			code, text := ask(t, h, client.RoleAdmin, c.method, c.path, c.body, client.HeaderChange, "lost")
			answers <- answer{code, text}
		}()
		var got answer
		select {
		case <-f.asked: // it waits
			f.mu.Lock()
			f.status.Driver.Ready = true
			close(f.changed)
			f.changed = make(chan struct{})
			f.mu.Unlock()
			got = <-answers
		case got = <-answers:
		}
		if got.code != 409 || !strings.Contains(got.text, "the change lease lost is over") {
			t.Errorf("%s %s: %d, %s", c.method, c.path, got.code, got.text)
		}
		if d := f.status.Driver; len(f.ops) > 0 || d.Role != confdb.Leader || !slices.Contains(d.Voters, 2) {
			t.Errorf("%s %s: the agreement was changed: %q", c.method, c.path, f.ops)
		}
	}
}
