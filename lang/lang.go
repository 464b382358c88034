// Package lang turns the files of a definition into typed objects, with
// diagnostics that say what, where and what to do.
//
// The way through: Load reads and checks what needs no values (syntax, block
// types, names, references, cycles, variables); Config.Evaluate unfolds
// for_each and count, works out every attribute, fills in defaults, writes
// what has a canonical text canonically, and checks the semantic rules of
// lang/spec; Definition.Resolve works out one object again once attributes
// that only an apply can know are known. Format is `fmt`.
//
// It owns the language. It never touches a disk or a network: files come from
// the fs.FS that it is given, providers' schemas are data. All errors of a
// definition are reported at once; after an error the values concerned are
// unknown and errors that only follow from it are not reported.
//
// Where to start reading: read.go (files to trees), load.go (trees to blocks), block.go (a block
// compiled by its schema), refs.go (which expression needs what), eval.go (the
// order of evaluation and the contexts), object.go (an object's value), module.go
// (what a definition of many directories is).
package lang

import (
	"io/fs"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Options says what to load.
type Options struct {
	FS  fs.FS  // the root's directory
	Dir string // its name in source ranges; "" is "."
	// Modules finds the directories of modules; nil: module blocks are refused.
	Modules Modules

	// Variables, weakest first: Env (os.Environ's form; CLUSTERPLAN_VAR_name
	// counts), auto.vars.hcl and *.auto.vars.hcl of the directory, Vars in order.
	Env  []string
	Vars []VarInput

	// Providers are the providers' own blocks, by name; a provider that isn't here is an error.
	Providers map[string]spec.Schema
	// Machinery are the machines, networks and volumes that providers have: the
	// schemas of their blocks, by provider and type.
	Machinery map[string]map[string]spec.Schema
	// ResourceTypes, by name; nil: spec.ResourceTypes().
	ResourceTypes map[string]spec.Schema
	// AllowUnset: a variable without a value is no error, and what hangs on it is
	// unknown. For editors: the values come when somebody plans.
	AllowUnset bool
	// Parse, if not nil, reads files in place of the function Parse: an editor's
	// server keeps what it has read of files that don't change. Many may call it
	// at a time.
	Parse func(src []byte, name string) (*hcl.File, hcl.Diagnostics)
	// Stop, once closed, ends what Load, Evaluate and Ask are at: they return at
	// once, with diagnostics that are Interrupted, and what they return has to go
	// unused. nil: they come to their end.
	Stop <-chan struct{}
	// Version of this program, for required_version; "" skips the check.
	Version string
}

// VarInput gives values to variables: one --var, or all of a --var-file.
type VarInput struct {
	// Name and Text: one variable. The text is taken as it is where the
	// variable's type is a string, number or bool, else it is an expression.
	Name, Text string
	// File and Src: a vars file that the caller has read.
	File string
	Src  []byte
	// Value, if not cty.NilVal, is the value of Name itself (a plan file's).
	Value cty.Value
	// Source, for people: "--var", "the plan file".
	Source string
}

// Backend is the backend block.
type Backend struct {
	Type     string            // local
	Settings map[string]string // its arguments that are given, as text
	Range    hcl.Range
}

// Encryption is the encryption block. Either of the two is given.
type Encryption struct {
	Recipients []string // of age
	Passphrase bool     // the environment has one
	Range      hcl.Range
}

// Edge says that an object needs another. Hard: if that one fails, this one is
// skipped; soft: it only comes later.
type Edge struct {
	To   addr.Address
	Hard bool
	// On: it stands on it, and is made anew with it: a node on its machine, a
	// machine on its networks and volumes.
	On bool

	waits bool // only by a depends_on
}

// Object is one object of the definition, resources included.
type Object struct {
	Addr     addr.Address
	Type     string // cluster, node, group, fence, machine, network, volume; a resource's own type
	Provider string // a node's, a machine's, a network's, a volume's; "confdb" for all others
	// Value is complete and canonical (lang/schema), of the type that
	// schema.Type or, for a resource, schema.ResourceType gives. Parts that an
	// apply will know are unknown; sensitive parts are marked.
	Value cty.Value
	// DependsOn is what the definition refers to, in address order, each once.
	// What every object of a kind needs (a group its cluster) is not in it.
	DependsOn      []Edge
	Unknown        bool // parts of Value are unknown
	PreventDestroy bool
	Checked        bool       // it has postconditions
	Ignore         []cty.Path // attributes that only count at create; shared, not to be written
	ReplaceBy      []Trigger  // what has it made anew when it changes

	block *block
}

// Output is one output. Its value is unknown while it depends on what an
// apply or only the running cluster knows.
type Output struct {
	Name        string
	Value       cty.Value // marks taken off
	Sensitive   bool
	Runtime     bool // refers to what only the running cluster knows (group.x.state)
	Description string
	DependsOn   []addr.Address // without a key: all instances
	Range       hcl.Range
}

// Provider is one provider's configuration; nodes' providers without a block
// have one with defaults.
type Provider struct {
	Name   string
	Config cty.Value
	Range  hcl.Range // zero without a block
}

// Variable is a variable's value as it was used.
type Variable struct {
	Name      string
	Value     cty.Value // marks taken off
	Sensitive bool
	Given     bool // its value is not the default
}

// Known tells the computed attributes of an object as far as they are known:
// an object value that has them among its attributes. False: none.
type Known func(addr.Address) (cty.Value, bool)
