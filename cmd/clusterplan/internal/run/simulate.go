package run

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
)

// SimulateOptions say what fails.
type SimulateOptions struct {
	Fail      []string // addresses and names of nodes, zone.NAME, device
	NoRefresh bool     // the definition alone, whatever runs
}

// Simulate works out what would become of the definition's groups. It asks the
// cluster where they are now, takes no lock and changes nothing. The diagnostics
// are warnings.
func (s *Session) Simulate(ctx context.Context, o SimulateOptions) (*planner.Simulation, hcl.Diagnostics, error) {
	if err := s.ReadState(ctx); err != nil {
		return nil, nil, err
	}
	if _, err := s.rename(planner.ModeNormal); err != nil {
		return nil, nil, err
	}
	def, diags := s.Config.Evaluate(s.known())
	diags = append(s.Diags, diags...)
	if diags.HasErrors() {
		return nil, nil, &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()}
	}
	if err := planner.CheckFaults(def, o.Fail); err != nil {
		return nil, nil, err
	}
	var world planner.World
	if !o.NoRefresh && s.Snap.State.Cluster != nil {
		if err := s.configure(def); err != nil {
			return nil, nil, err
		}
		refresh.Live(ctx, s.registry, &world)
		if ctx.Err() != nil {
			return nil, nil, ErrInterrupted
		}
		if d := dimly(&world); d != nil {
			diags = append(diags, d)
		}
	}
	sim, err := planner.Simulate(def, &s.Snap.State, world.Live, o.Fail)
	if err != nil {
		return nil, diags, err
	}
	sim.Diagnostics = view.JSONDiagnostics(diags, s.Config.Files())
	return sim, diags, nil
}

// dimly warns of a cluster that is not seen as it is.
func dimly(world *planner.World) *hcl.Diagnostic {
	switch {
	case world.Live == nil:
		return &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "The cluster can't be seen",
			Detail: "Groups are taken to be where they would start first, and every node to be up. What came back: " + strings.TrimSuffix(world.LiveErr, ".") + "."}
	case !world.Live.Quorum:
		return &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "The cluster has no quorum now",
			Detail: fmt.Sprintf("Groups are where revision %d had them, and nodes of which nobody can tell are taken to be up. clusterplan apply starts agents that don't run.", world.Live.Revision)}
	}
	return nil
}
