package lang

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"sync"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// The shapes of what is no object of a cluster: the blocks and arguments of the
// language itself. Load reads blocks by them, and Language describes them, so
// that what is accepted and what is told are one.

// Types of values that only the language's own blocks have.
const (
	TypeAny     spec.ValueType = "any"        // an expression of any type
	TypeText    spec.ValueType = "constraint" // a type: string, list(string), object({ ... })
	TypeEach    spec.ValueType = "map or set" // what for_each takes
	TypeAddress spec.ValueType = "address"    // an object's address, written out
	TypeAddrs   spec.ValueType = "list(address)"
	TypeName    spec.ValueType = "name"            // a bare name
	TypeNames   spec.ValueType = "list(attribute)" // attributes of the block, without quotes
)

var (
	forEachArg = spec.Attribute{Name: "for_each", Type: TypeEach, KnownAtPlan: true, Impact: spec.ImpactNone,
		Doc: "One instance for each element of a map or a set of strings. Within the block, each.key and each.value are the instance's."}
	countArg = spec.Attribute{Name: "count", Type: spec.TypeNumber, KnownAtPlan: true, Impact: spec.ImpactNone,
		Doc: "So many instances. Within the block, count.index is the instance's number, from 0."}

	dependsOnArg = spec.Attribute{Name: "depends_on", Type: TypeAddrs, KnownAtPlan: true, Impact: spec.ImpactNone,
		Doc: "Objects and modules that are applied before it, beside those that it refers to."}

	conditionArgs = []spec.Attribute{
		{Name: "condition", Type: spec.TypeBool, Required: true, Impact: spec.ImpactNone, Doc: "An expression that is true where all is well."},
		{Name: "error_message", Type: spec.TypeString, Required: true, Impact: spec.ImpactNone, Doc: "What a person reads where the condition is false."},
	}
	conditionBody = bodyOf(spec.Schema{Attributes: conditionArgs})

	backendLocal = spec.Schema{Name: "local", Doc: "The state is a file.", Attributes: []spec.Attribute{
		{Name: "path", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The state file, relative to the definition's directory; a literal."},
	}}
	// backendHTTP's arguments are Terraform's. A secret does not stand here: the
	// environment has it, and what else is left out.
	backendHTTP = spec.Schema{Name: "http", Doc: "The state lies behind an HTTP address, as Terraform's HTTP backend has it. Needs an encryption block. What is left out is taken from CLUSTERPLAN_HTTP_ADDRESS and so on; the password from there alone.", Attributes: []spec.Attribute{
		{Name: "address", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "URL of the state, asked by GET; a literal."},
		{Name: "update_method", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Method that writes the state; default POST."},
		{Name: "lock_address", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "URL of the lock, without which nothing is written."},
		{Name: "lock_method", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Method that takes the lock; default LOCK."},
		{Name: "unlock_address", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "URL that gives the lock back; default lock_address."},
		{Name: "unlock_method", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Method that gives the lock back; default UNLOCK."},
		{Name: "username", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "For Basic authentication; the password is in CLUSTERPLAN_HTTP_PASSWORD."},
		{Name: "client_ca_certificate_pem", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Authority of the server's certificate, as PEM text; default: the system's."},
		{Name: "retry_max", Type: spec.TypeNumber, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "So often a request that failed is made again; default 2."},
		{Name: "retry_wait_min", Type: spec.TypeNumber, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Seconds before the first time; default 1."},
		{Name: "retry_wait_max", Type: spec.TypeNumber, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Most seconds between two times; default 30."},
	}}
	// backendGit's secrets are the environment's too.
	backendGit = spec.Schema{Name: "git", Doc: "The state lies in a ref of a git repository, to which it is pushed. Needs an encryption block. What is left out is taken from CLUSTERPLAN_GIT_REF and so on; the password from there, from ~/.netrc, or from the repository's own configuration.", Attributes: []spec.Attribute{
		{Name: "ref", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The ref, which no other definition has: shop is refs/clusterplan/state/shop; a literal."},
		{Name: "repository", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "URL of the repository, over https, ssh or http; default: that of a remote of the definition's own."},
		{Name: "remote", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The remote of the definition's own repository; default origin."},
		{Name: "username", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "For Basic authentication; the password is in CLUSTERPLAN_GIT_PASSWORD."},
		{Name: "ssh_key", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "File of a private key without a passphrase; default: the SSH agent's, or those of ~/.ssh."},
		{Name: "client_ca_certificate_pem", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Authority of the server's certificate, as PEM text; default: the system's."},
	}}
	backends = []spec.Schema{backendLocal, backendHTTP, backendGit}

	encryptionArgs = []spec.Attribute{
		{Name: "recipients", Type: spec.TypeStrings, KnownAtPlan: true, Impact: spec.ImpactNone,
			Doc: "Who can read it: public keys, as age-keygen prints them (age1...), or of SSH (ssh-ed25519, ssh-rsa); literals. To read, CLUSTERPLAN_AGE_IDENTITY_FILE names the file with the other half of one."},
		{Name: "passphrase", Type: spec.TypeBool, KnownAtPlan: true, Impact: spec.ImpactNone,
			Doc: "true: it is encrypted with the passphrase in CLUSTERPLAN_PASSPHRASE, instead of for recipients; a literal."},
	}

	settingsSchema = spec.Schema{Name: "clusterplan", Doc: "Settings of the program itself.",
		Attributes: []spec.Attribute{
			{Name: "required_version", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: `The versions of clusterplan that may read this definition, as ">= 0.1.0".`},
		},
		Blocks: []spec.Block{{Name: "backend", Label: "type", Doc: "Where the state is kept."},
			{Name: "encryption", Attributes: encryptionArgs, Doc: "Encrypts the state, its journal and backups, and plan files, with age."}}}

	settingsBody   = bodyOf(settingsSchema)
	encryptionBody = bodyOf(spec.Schema{Attributes: encryptionArgs})

	variableSchema = spec.Schema{Name: "variable", Doc: "A value that is given from outside: with --var, a vars file or the environment.",
		Attributes: []spec.Attribute{
			{Name: "type", Type: TypeText, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The type that a value is brought to, as list(string) or object({ port = optional(number, 80) }); default: any."},
			{Name: "default", Type: TypeAny, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The value where none is given, a literal. Without it, one has to be given."},
			{Name: "description", Type: spec.TypeString, Impact: spec.ImpactNone, Doc: "For people; a literal."},
			{Name: "nullable", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Whether null is a value of it; a literal."},
			{Name: "sensitive", Type: spec.TypeBool, Default: false, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Its value is never shown; a literal."},
		},
		Blocks: []spec.Block{{Name: "validation", Repeated: true, Attributes: conditionArgs, Doc: "What has to hold of the value. It sees variables and local values."}}}
	variableBody = bodyOf(variableSchema)

	localsSchema = spec.Schema{Name: "locals", Doc: "Names for expressions: NAME = EXPRESSION, used as local.NAME."}

	outputSchema = spec.Schema{Name: "output", Doc: "A value that an apply tells, kept in the state.",
		Attributes: []spec.Attribute{
			{Name: "value", Type: TypeAny, Required: true, Impact: spec.ImpactNone, Doc: "The value. It may ask for what only the running cluster knows: group.NAME.state and .owner, node.NAME.state."},
			{Name: "description", Type: spec.TypeString, Impact: spec.ImpactNone, Doc: "For people; a literal."},
			{Name: "sensitive", Type: spec.TypeBool, Default: false, Impact: spec.ImpactNone, Doc: "It is never shown, and not kept in the state; a literal."},
			{Name: "depends_on", Type: TypeAddrs, Impact: spec.ImpactNone, Doc: "Objects that are there before it is worked out."},
		},
		Blocks: []spec.Block{{Name: "precondition", Repeated: true, Attributes: conditionArgs, Doc: "What has to hold before the value is told."}}}
	outputBody = bodyOf(outputSchema)

	checkSchema = spec.Schema{Name: "check", Doc: "What should hold of the running cluster. One that fails warns.",
		Blocks: []spec.Block{{Name: "assert", Repeated: true, Attributes: conditionArgs, Doc: "One thing that should hold."}}}
	checkBody = alsoBlock(bodyOf(checkSchema), "data", "type", "name") // refused in our words

	movedSchema = spec.Schema{Name: "moved", Doc: "An object has another address now, and is the same: nothing is deleted or created.",
		Attributes: []spec.Attribute{
			{Name: "from", Type: TypeAddress, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The address that it had."},
			{Name: "to", Type: TypeAddress, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The address that it has."},
		}}
	movedBody = bodyOf(movedSchema)

	destroyArg = spec.Attribute{Name: "destroy", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Impact: spec.ImpactNone,
		Doc: "true deletes the object, false has it go on and only forgets it; a literal."}
	removedSchema = spec.Schema{Name: "removed", Doc: "An object is in the definition no more: delete it, or only forget it.",
		Attributes: []spec.Attribute{
			{Name: "from", Type: TypeAddress, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The address that it had."},
			destroyArg,
		},
		Blocks: []spec.Block{{Name: "lifecycle", Attributes: []spec.Attribute{destroyArg}, Doc: "Holds destroy, as Terraform has it."}}}
	removedBody    = bodyOf(removedSchema)
	removedDestroy = bodyOf(spec.Schema{Attributes: []spec.Attribute{destroyArg}})

	importSchema = spec.Schema{Name: "import", Doc: "Takes over what is there already and no state knows.",
		Attributes: []spec.Attribute{
			{Name: "to", Type: TypeAddress, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The address that it gets; with for_each, its key may be each.key."},
			{Name: "id", Type: spec.TypeString, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "What its provider knows it by."},
			forEachArg,
		}}
	importBody = alsoAttribute(bodyOf(importSchema), "provider") // refused in our words

	lifecycleSchema = spec.Schema{Name: "lifecycle", Doc: "How the object may come and go.",
		Attributes: []spec.Attribute{
			{Name: "prevent_destroy", Type: spec.TypeBool, Default: false, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "A plan that would delete it is an error, also when the block is gone; a literal."},
			{Name: "ignore_changes", Type: TypeNames, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Attributes that count at create and never again, as [description, labels]; or all."},
			{Name: "create_before_destroy", Type: spec.TypeBool, Default: false, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Can only be false: no object can be there twice."},
			{Name: "replace_triggered_by", Type: TypeAddrs, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Objects, or attributes of them: when one changes, this one is made anew."},
		},
		Blocks: []spec.Block{
			{Name: "precondition", Repeated: true, Attributes: conditionArgs, Doc: "What has to hold before the object is changed. A plan that breaks it is an error."},
			{Name: "postcondition", Repeated: true, Attributes: conditionArgs, Doc: "What has to hold once it is changed; self is the object. What needs it waits."},
		}}
	lifecycleBody = bodyOf(lifecycleSchema)
)

// bodyOf is what hcl is to accept of a block of the shape s.
func bodyOf(s spec.Schema) *hcl.BodySchema {
	out := &hcl.BodySchema{}
	for _, a := range s.Attributes {
		out.Attributes = append(out.Attributes, hcl.AttributeSchema{Name: a.Name, Required: a.Required})
	}
	for _, b := range s.Blocks {
		header := hcl.BlockHeaderSchema{Type: b.Name}
		if b.Label != "" {
			header.LabelNames = []string{b.Label}
		}
		out.Blocks = append(out.Blocks, header)
	}
	return out
}

// alsoBlock accepts a block that is no part of the language, to refuse it with
// words of its own.
func alsoBlock(b *hcl.BodySchema, name string, labels ...string) *hcl.BodySchema {
	b.Blocks = append(b.Blocks, hcl.BlockHeaderSchema{Type: name, LabelNames: labels})
	return b
}

// alsoAttribute is alsoBlock for an attribute.
func alsoAttribute(b *hcl.BodySchema, name string) *hcl.BodySchema {
	b.Attributes = append(b.Attributes, hcl.AttributeSchema{Name: name})
	return b
}

// BlockType describes a block of the language, with everything that may stand
// in it.
type BlockType struct {
	Name   string
	Labels []string // what its labels are; none: it has none
	Doc    string
	// Repeated: several may stand in one place; of those with labels, with
	// different ones.
	Repeated   bool
	Attributes []spec.Attribute
	Blocks     []BlockType
	// Types, where the first label chooses among shapes (resource, provider,
	// backend): what each has beside the above, by label.
	Types []BlockType
	// Open: attributes of any name may stand in it (locals).
	Open bool
}

// Block finds a nested block's type by name.
func (b *BlockType) Block(name string) *BlockType { return findBlock(b.Blocks, name) }

// Attribute finds an attribute by name.
func (b *BlockType) Attribute(name string) *spec.Attribute {
	for i := range b.Attributes {
		if b.Attributes[i].Name == name {
			return &b.Attributes[i]
		}
	}
	return nil
}

// Of is the block's type where its first label is given: with what that label
// adds to it.
func (b *BlockType) Of(label string) *BlockType {
	t := findBlock(b.Types, label)
	if t == nil {
		return b
	}
	out := *b
	out.Doc = t.Doc
	out.Attributes = append(t.Attributes[:len(t.Attributes):len(t.Attributes)], b.Attributes...)
	out.Blocks = slices.Clone(t.Blocks)
	for _, inner := range b.Blocks {
		if own := findBlock(out.Blocks, inner.Name); own != nil && inner.Name == dynamicSchema.Name {
			own.Types = append(slices.Clone(own.Types), inner.Types...)
			continue
		}
		out.Blocks = append(out.Blocks, inner)
	}
	return &out
}

func findBlock(all []BlockType, name string) *BlockType {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// Language describes every block that a file of a definition may have at its
// root, in the order of rootBlocks: what Load accepts with the same Options.
func Language(o Options) []BlockType {
	if o.ResourceTypes == nil {
		o.ResourceTypes = spec.ResourceTypes()
	}
	var out []BlockType
	for _, r := range rootBlocks {
		t := r.describe(&o)
		if t.Name == "" {
			continue // no provider has any
		}
		t.Labels, t.Repeated = r.LabelNames, r.Type != addr.TypeCluster && r.Type != "clusterplan"
		out = append(out, t)
	}
	return out
}

// rootBlock is a block of the root, and where its description comes from.
type rootBlock struct {
	hcl.BlockHeaderSchema
	describe func(*Options) BlockType
}

// objectType describes a block that is an object, by its schema and what stands beside.
func objectType(kind string, s func() spec.Schema) func(*Options) BlockType {
	return func(o *Options) BlockType {
		t := describe(s())
		beside(kind, &t)
		if kind == addr.TypeGroup {
			t.Blocks = append(t.Blocks, resourceType(o))
		}
		withDynamic(&t)
		return t
	}
}

// machineryType describes the blocks of a type that a provider makes: what any
// of the providers has.
func machineryType(kind string) func(*Options) BlockType {
	return func(o *Options) BlockType {
		var all spec.Schema
		for _, provider := range o.madeBy(kind) {
			s := o.Machinery[provider][kind]
			if all.Name == "" {
				all = s
				continue
			}
			for _, a := range s.Attributes {
				if _, have := all.Attribute(a.Name); !have {
					all.Attributes = append(slices.Clip(all.Attributes), a)
				}
			}
			for _, b := range s.Blocks {
				if !slices.ContainsFunc(all.Blocks, func(have spec.Block) bool { return have.Name == b.Name }) {
					all.Blocks = append(slices.Clip(all.Blocks), b)
				}
			}
		}
		if all.Name == "" {
			return BlockType{}
		}
		return objectType(kind, func() spec.Schema { return all })(o)
	}
}

// madeBy are the providers that have blocks of a type, in order.
func (o *Options) madeBy(kind string) []string {
	var out []string
	for _, provider := range sortedKeys(o.Machinery) {
		if _, ok := o.Machinery[provider][kind]; ok {
			out = append(out, provider)
		}
	}
	return out
}

func shapeType(s spec.Schema) func(*Options) BlockType {
	return func(*Options) BlockType { return describe(s) }
}

// beside adds what stands in an object's block beside its schema.
func beside(kind string, t *BlockType) {
	want := besideSchema(kind)
	t.Attributes = append(t.Attributes, want.Attributes...)
	for _, b := range want.Blocks {
		t.Blocks = append(t.Blocks, describeBlock(b))
	}
}

// besideSchema is what may stand in an object's block beside its own schema,
// but for a group's resources.
func besideSchema(kind string) spec.Schema {
	var s spec.Schema
	if kind != addr.TypeGuarantee { // which is no object, that could be destroyed
		s.Blocks = []spec.Block{{Name: "lifecycle", Doc: lifecycleSchema.Doc, Attributes: lifecycleSchema.Attributes, Blocks: lifecycleSchema.Blocks}}
	}
	if kind != addr.TypeCluster {
		s.Attributes = []spec.Attribute{forEachArg, countArg}
	}
	if waits(kind) {
		s.Attributes = append(s.Attributes, dependsOnArg)
	}
	return s
}

// besideBodies are what hcl is to accept in objects' blocks beside their schemas.
var besideBodies = sync.OnceValue(func() map[string]*hcl.BodySchema {
	out := map[string]*hcl.BodySchema{}
	for _, kind := range []string{addr.TypeCluster, addr.TypeNode, addr.TypeFence, addr.TypeGroup, addr.TypeGuarantee, rootResource, addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume} {
		out[kind] = bodyOf(besideSchema(kind))
	}
	alsoBlock(out[addr.TypeGroup], rootResource, "type", "name")
	return out
})

func resourceType(o *Options) BlockType {
	t := describe(spec.ResourceCommon())
	t.Name, t.Labels, t.Repeated = rootResource, []string{"type", "name"}, true
	t.Doc = "Something that the group runs or holds on its owner."
	beside(rootResource, &t)
	for _, name := range sortedKeys(o.ResourceTypes) {
		t.Types = append(t.Types, describe(o.ResourceTypes[name]))
	}
	return t
}

// dynamicSchema is a dynamic block, which stands for blocks of the type that its
// label names.
var dynamicSchema = spec.Schema{Name: "dynamic", Doc: "As many blocks of a type as for_each has elements.",
	Attributes: []spec.Attribute{
		{Name: "for_each", Type: TypeAny, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "One block for each element of this list, set or map."},
		{Name: "iterator", Type: TypeName, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "What the content calls an element, as NAME.key and NAME.value, without quotes; default: the type of the block."},
		{Name: "labels", Type: spec.TypeStrings, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "The label of each block, where its type has one."},
	},
	Blocks: []spec.Block{{Name: "content", Doc: "What stands in each block: what a block of the type has."}}}

var dynamicBody = bodyOf(optional(dynamicSchema)) // what lacks is told in our words

func optional(s spec.Schema) spec.Schema {
	s.Attributes = slices.Clone(s.Attributes)
	for i := range s.Attributes {
		s.Attributes[i].Required = false
	}
	return s
}

// neverDynamic tells whether a block can't be written by a dynamic one.
func neverDynamic(around, typ string) bool {
	return typ == rootResource || typ == "lifecycle" || around == addr.TypeCluster && typ == "quorum"
}

// withDynamic adds dynamic blocks to all that have blocks to repeat. What their
// content has is not said again: it is what the block has that their label names.
func withDynamic(t *BlockType) {
	d := describe(dynamicSchema)
	d.Labels, d.Repeated = []string{"type"}, true
	for i := range t.Blocks {
		b := &t.Blocks[i]
		if b.Name == "lifecycle" {
			continue
		}
		withDynamic(b)
		for j := range b.Types {
			withDynamic(&b.Types[j])
		}
		if !neverDynamic(t.Name, b.Name) {
			d.Types = append(d.Types, BlockType{Name: b.Name, Doc: b.Doc})
		}
	}
	if len(d.Types) > 0 {
		t.Blocks = append(t.Blocks, d)
	}
}

func providerType(o *Options) BlockType {
	t := BlockType{Name: "provider", Doc: "How a provider reaches what it looks after. Nodes name it with provider = NAME."}
	for _, name := range sortedKeys(o.Providers) {
		own := describe(o.Providers[name])
		own.Name = name
		t.Types = append(t.Types, own)
	}
	return t
}

func settingsType(*Options) BlockType {
	t := describe(settingsSchema)
	for i := range t.Blocks {
		if t.Blocks[i].Name == "backend" {
			for _, b := range backends {
				t.Blocks[i].Types = append(t.Blocks[i].Types, describe(b))
			}
		}
	}
	return t
}

// moduleType: the module's own variables are arguments beside these.
func moduleType(*Options) BlockType {
	return BlockType{Name: rootModule, Doc: "Calls a module: what its directory holds stands in the definition under module.NAME, with the arguments as its variables.", Open: true,
		Attributes: []spec.Attribute{
			{Name: "source", Type: spec.TypeString, Required: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: `The module's directory, from that of this file, as "./modules/web"; a literal.`},
			forEachArg, countArg,
			{Name: "depends_on", Type: TypeAddrs, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "Objects and modules that are applied before anything of this module."},
		}}
}

func localsType(*Options) BlockType {
	t := describe(localsSchema)
	t.Open = true
	return t
}

func describe(s spec.Schema) BlockType {
	t := BlockType{Name: s.Name, Doc: s.Doc, Attributes: append([]spec.Attribute(nil), s.Attributes...)}
	for _, b := range s.Blocks {
		t.Blocks = append(t.Blocks, describeBlock(b))
	}
	return t
}

func describeBlock(b spec.Block) BlockType {
	t := BlockType{Name: b.Name, Doc: b.Doc, Repeated: b.Repeated, Attributes: append([]spec.Attribute(nil), unlabelled(b)...)}
	if b.Label != "" {
		t.Labels = []string{b.Label}
	}
	for _, inner := range b.Blocks {
		t.Blocks = append(t.Blocks, describeBlock(inner))
	}
	return t
}

// waits tells whether blocks of a kind have a depends_on that only orders the
// apply: groups and resources have one of their own.
func waits(kind string) bool { return kind == addr.TypeNode || addr.Machinery(kind) }
