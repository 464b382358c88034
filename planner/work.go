package planner

import (
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Work is what planner/apply needs of a plan and its JSON does not show: the
// units of work and what each waits for.
type Work struct {
	Units []*Unit           // in an order that keeps every edge
	Graph *graph.Graph[Key] // who waits for whom
	// Kept are the objects that are as they should be, as they were read: the
	// state may not know it yet, where an apply was cut off.
	Kept []Kept
	// Renames are objects whose addresses the state has to change, at once and
	// before anything is done: Rename made the state that the plan rests on.
	Renames []statefile.Move
	// Deposes are nodes whose places others take, with the addresses under which
	// they leave: the state has to have them before the others are begun.
	Deposes []statefile.Move
	// Adoptions are imports: written into the state at once, before anything is
	// done to them. Those of objects that somebody else manages come with their
	// units (Unit.Adopt).
	Adoptions []Adoption
	// Dropped are imports that an earlier run began and nobody goes on with.
	Dropped []addr.Address
	// First says that there is no cluster yet.
	First bool
	// AllowQuorumLoss as it was planned.
	AllowQuorumLoss bool
	Destroy         bool
	// Rereads: no object is touched; the state takes over what is Kept, and
	// forgets what is Gone.
	Rereads bool
	Gone    []addr.Address
	// Recheck are objects that nothing is done to and whose conditions could not
	// be worked out: they may hang on what the apply does to others.
	Recheck []Recheck
	// Left are the objects that a plan of a part leaves as they are, where the
	// definition has conditions.
	Left map[addr.Address]bool
	// KeepOutputs: the plan is of a part, and the outputs stay as they were.
	KeepOutputs bool
}

// Kept is an object that nothing is done to.
type Kept struct {
	Addr    addr.Address
	Value   cty.Value
	Prevent bool // prevent_destroy, for the state: it holds also once the block is gone
	// Sensitive are the attributes that are so, for the state.
	Sensitive []string
	DependsOn []addr.Address // for the state: an apply that was cut off may have changed it
}

// Recheck is an object whose conditions are to be looked at after the apply.
type Recheck struct {
	Addr addr.Address
	Self cty.Value // as it is; sensitive parts are marked
}

// PhaseBegun stands among the phases of an object in the state whose create
// was begun, and may or may not have had an effect.
const PhaseBegun = "begun"

// Outside are the phases, as the state has them, of a node that has left the cluster
// and is on its host still.
var Outside = []string{providers.PhaseInstall, providers.PhaseStart}

// Stage is a part of an object's action that is ordered on its own.
type Stage string

// Stages. A node's agent is up before the cluster is there; it joins after.
const (
	StageWhole Stage = ""       // clusters and groups
	StageUp    Stage = "up"     // install, start: needs no cluster
	StageJoin  Stage = "join"   // join, promote, settings: adds votes or leaves them
	StageRoll  Stage = "roll"   // takes the node out and back: a rolling operation
	StageOut   Stage = "out"    // of a node: its way out, before its machine is made anew or reboots; of machinery: the old one goes
	StageLeave Stage = "leave"  // drain, leave, stop, remove
	StageName  Stage = "name"   // a node takes the name of the one whose place it took
	StageGate  Stage = "quorum" // nothing to do: waits until the cluster can commit
	StageMark  Stage = "mark"   // nothing to do: one vertex where many edges would be
)

// Key names a unit: a vertex of the graph.
type Key struct {
	Addr  addr.Address
	Stage Stage
}

// String is for errors and drawings.
func (k Key) String() string {
	if k.Stage == StageWhole {
		return k.Addr.String()
	}
	if k.Addr.Type == "" {
		return string(k.Stage) + " " + k.Addr.Name
	}
	return k.Addr.String() + " (" + string(k.Stage) + ")"
}

// Unit is one vertex: phases of one object's change that are done one after
// the other. A group's unit holds its resources: one call, one intent.
type Unit struct {
	Key       Key
	Action    string // create | update | replace | delete | forget; "" for gates and marks
	Type      string
	Provider  string
	ID        string            // "": to be given
	Config    cty.Value         // cty.NilVal: to be deleted; unknown parts are resolved at apply
	Prior     *providers.Object // as read; nil: nothing there
	Old       *statefile.Object // as in state; nil: not there
	Remove    []string          // phases that take the old object away
	Phases    []string          // phases that bring the new one about
	Last      bool              // the object's last unit: its create is done then
	Parts     []Part            // of a group, in the order of the definition
	Gone      []addr.Address    // of a group: resources that it loses
	DependsOn []addr.Address    // for the state
	Prevent   bool              // prevent_destroy, for the state
	Votes     int               // of a node: what its taking away costs
	Beside    bool              // of a node: whose place it takes is in the cluster still
	Instead   bool              // of a node that is made anew, join before leave: the new one's and the old one's
	Silent    bool              // of a node: its host could not be reached when the plan was made
	Ground    bool              // of a node that goes: so does what it stands on, and with that all that is left of it
	gives     int               // of a node: what it counts for once it is as wanted
	// Adopt: somebody else manages it until now. It comes into the state once it
	// was taken over, as this: resources before their group.
	Adopt []statefile.Object
	// Keep gives what is resolved at apply the attributes that stay as they are
	// (ignore_changes). nil: there are none.
	Keep func(cty.Value) cty.Value

	// Any: it starts once this many of Of are done, and fails when too few
	// are left that could be.
	Any int
	Of  []Key
}

// Part is a resource in a group's unit.
type Part struct {
	Addr    addr.Address
	ID      string // "": to be given
	Type    string
	Config  cty.Value
	Old     *statefile.Object
	Change  *Change
	Depends []addr.Address
	Prevent bool
	Keep    func(cty.Value) cty.Value // as Unit's
}

// Work is what an apply does.
func (p *Plan) Work() *Work { return p.work }
