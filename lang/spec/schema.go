package spec

import "github.com/clusterplan/clusterplan/lang/addr"

// Impact is what a change of an attribute does to what runs.
type Impact string

const (
	ImpactNone            Impact = "none"
	ImpactRestartResource Impact = "restart_resource"
	ImpactRestartGroup    Impact = "restart_group"
	ImpactRestartAgent    Impact = "restart_agent"
	ImpactReboot          Impact = "reboot"
	ImpactReplace         Impact = "replace"
	ImpactMembership      Impact = "membership"
	ImpactTimings         Impact = "timings"
)

// ValueType is the type of an attribute's value, as data.
type ValueType string

const (
	TypeString     ValueType = "string"
	TypeNumber     ValueType = "number"
	TypeBool       ValueType = "bool"
	TypeDuration   ValueType = "duration" // a string that ParseDuration reads; kept canonical
	TypeSize       ValueType = "size"     // a string that ParseSize reads; kept canonical
	TypeStrings    ValueType = "list(string)"
	TypeStringMap  ValueType = "map(string)"
	TypeQuantities ValueType = "map(quantity)" // numbers or sizes, by name
	TypeCounts     ValueType = "map(number)"   // whole numbers from 0, by name
	TypeNodeRefs   ValueType = "list(node)"    // kept as node names
	TypeGroupRefs  ValueType = "list(group)"   // kept as group names
	// Of machines, networks and volumes: what stands on them is made anew with
	// them. Kept as names.
	TypeNetworkRef  ValueType = "network"
	TypeNetworkRefs ValueType = "list(network)"
	TypeVolumeRef   ValueType = "volume"
	TypeVolumeRefs  ValueType = "list(volume)"
)

// Attribute is one attribute of an object, a block or a resource type.
type Attribute struct {
	Name        string
	Type        ValueType
	Required    bool
	Computed    bool     // the provider knows it once the object is there
	Default     any      // JSON value; nil: none
	Values      []string // the only ones allowed, for strings
	KnownAtPlan bool
	Sensitive   bool
	Impact      Impact
	Doc         string
}

// Block is a nested block that stands at most once, or, Repeated, any number of
// times: then its value is a list of objects in the order of the file.
type Block struct {
	Name     string
	Repeated bool
	// Label, of a repeated block, names the attribute that its label gives; no
	// two of them have the same. "": it has no label.
	Label      string
	Attributes []Attribute
	Blocks     []Block
	Doc        string
}

// Schema is the shape of an object or of a resource type's own attributes.
type Schema struct {
	Name       string
	Attributes []Attribute
	Blocks     []Block
	Doc        string
}

// Problem is a broken semantic rule. Sources are resolved by address.
type Problem struct {
	Addr      addr.Address
	Attribute string // the attribute or block at fault, "" for the object
	Warning   bool
	Cycle     []addr.Address // of a dependency cycle: each depends on the next, the last on the first
	Summary   string         // no full stop
	Detail    string         // full sentences that say what to do
}
