package monitor

import (
	"github.com/clusterplan/clusterplan/lang/spec"
)

// The agent and its monitor talk over an inherited socket pair: JSON values,
// one a line, in order. Exactly one field of each is set.

// Order is the agent's word to the monitor.
type Order struct {
	Configure *Configure     `json:"configure,omitempty"` // first, once
	Renew     *spec.Instant  `json:"renew,omitempty"`     // lease end on this host's boot clock; by shared memory (lease.go), unless it is shorter than before
	Start     *Start         `json:"start,omitempty"`
	Stop      *ResourceRef   `json:"stop,omitempty"`     // by its stop signal, after its stop_timeout by killing
	End       *GroupRef      `json:"end,omitempty"`      // kill what is left of it; Down follows
	Recorded  *RecordedOrder `json:"recorded,omitempty"` // to a separate monitor
	Fences    *Fences        `json:"fences,omitempty"`   // other than it said before; until the monitor is ready
}

// Fences says who relies on the node's being turned off for what its scripts leave on.
// The agent says it anew (Order) until the monitor is ready.
type Fences struct {
	Covered bool     `json:"covered,omitempty"` // a fence covers the node, or may
	Alone   []string `json:"alone,omitempty"`   // scripts, as group/resource, for which no fence comes all the same
}

// Configure says whom the monitor works for.
type Configure struct {
	Cluster string `json:"cluster"`           // name
	Node    string `json:"node"`              // name
	Dir     string `json:"dir"`               // the node's directory: lock, record, logs
	Program string `json:"program"`           // this program's file; its directory comes first in the resources' PATH
	Socket  string `json:"socket"`            // the local API
	Freezer bool   `json:"freezer,omitempty"` // it hosts what goes on without a lease (freezer.go)
	Apart   *Apart `json:"apart,omitempty"`   // to a separate monitor
	Fences  Fences `json:"fences"`

	Watchdog        string        `json:"watchdog,omitempty"` // the device (watchdog.go); "": none
	WatchdogTimeout spec.Duration `json:"watchdog_timeout,omitempty"`
}

// Start starts a resource.
type Start struct {
	Group      string        `json:"group"` // id
	GroupName  string        `json:"group_name"`
	Epoch      uint64        `json:"epoch"`
	StopWithin spec.Duration `json:"stop_within"`
	Kill       spec.Duration `json:"kill"` // within which the kernel has to have killed it after that
	Resource   spec.Resource `json:"resource"`
	Socket     string        `json:"socket,omitempty"` // the group's own, in Configure.Socket's place
}

// ResourceRef names a resource of a group under an epoch.
type ResourceRef struct {
	Group    string `json:"group"`
	Epoch    uint64 `json:"epoch"`
	Resource string `json:"resource"` // its name
}

// GroupRef names a group under an epoch.
type GroupRef struct {
	Group string `json:"group"`
	Epoch uint64 `json:"epoch"`
}

// Word is the monitor's word to the agent.
type Word struct {
	Ready   *ReadyWord   `json:"ready,omitempty"` // holds the node's lock, has cleaned up
	Changed *Changed     `json:"changed,omitempty"`
	Gone    *ResourceRef `json:"gone,omitempty"` // nothing is left of a resource that has failed
	Down    *GroupRef    `json:"down,omitempty"` // the answer to an End: nothing of the group is left under this epoch or an older one
	Log     *LogWord     `json:"log,omitempty"`
	Record  *RecordWord  `json:"record,omitempty"` // of a separate monitor
	Waits   string       `json:"waits,omitempty"`  // why it is not ready yet, for a person
	Stuck   string       `json:"stuck,omitempty"`  // what of an earlier monitor doesn't go, though it was killed
}

// ReadyWord is the first word.
type ReadyWord struct {
	PID        int           `json:"pid"`
	Token      string        `json:"token"`                 // in the environment of all that it starts
	Cgroup     string        `json:"cgroup,omitempty"`      // above those of its programs; "": they have none
	Watchdog   spec.Duration `json:"watchdog,omitempty"`    // time-out of the one that is armed; 0: none
	NoWatchdog string        `json:"no_watchdog,omitempty"` // why that isn't the configured one
}

// Changed is a resource's new state.
type Changed struct {
	ResourceRef
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Stopping bool   `json:"stopping,omitempty"` // it has failed, and what is left of it is being stopped: Gone follows, or StateOffline where its stop was ordered
}

// LogWord is a line for the agent's log.
type LogWord struct {
	Level string         `json:"level"`
	Text  string         `json:"text"`
	Args  map[string]any `json:"args,omitempty"`
}
