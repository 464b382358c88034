package lang

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Config is a definition that was read: everything that needs no values is
// checked, variables have theirs. It doesn't change any more. Its modules are
// Configs as well, one for each directory.
type Config struct {
	Backend         *Backend    // nil: none is given
	Encryption      *Encryption // nil: the state is in plain
	RequiredVersion string

	opts Options
	root *Config // itself, or the one that the module belongs to
	dir  string  // from the root's directory: path.module

	// Of the root:
	reader *reader            // until all is read
	dirs   map[string]*Config // modules by dir
	parts  []*Config          // all modules, those that others call first, the root last
	top    *site

	files     map[string]*hcl.File
	functions map[string]function.Function
	exprs     int // expressions that were compiled
	iterators iterators
	schemas   schemas
	shapes    map[shapeKey]*shape // written by Load only

	vars      map[string]*variable
	locals    map[string]*local
	outputs   map[string]*output
	providers map[string]*providerDecl
	cluster   *block
	nodes     map[string]*block
	fences    map[string]*block
	groups    map[string]*block
	machinery map[string]map[string]*block // machines, networks and volumes: by type, by name
	moved     []Move                       // this module's blocks
	removed   []Removed                    // likewise
	imports   []*importBlock
	moves     Moves    // of the root: those of all modules
	removals  removals // likewise

	guarantees map[string]*block
	checks     map[string]*checkDecl
	conditions bool // there are some, or checks

	modules map[string]*moduleCall

	varsValue cty.Value // all variables as one object
	order     []placed  // of evaluation
	cyclic    []placed  // stand in a cycle
	unsound   bool      // blocks or attributes are missing because of an error
	unparsed  bool      // a file has syntax errors, or can't be read: values that are unknown may be due to them
	// unparsedOwn: the same of this module's own files.
	unparsedOwn bool
	torn        torn
}

// Files are the files that diagnostics refer to, by name, without their bodies.
func (c *Config) Files() map[string]*hcl.File { return c.files }

// Size is how many bytes of text the definition has, with its modules.
func (c *Config) Size() int {
	n := 0
	for _, f := range c.files {
		n += len(f.Bytes)
	}
	return n
}

// ClusterName is the cluster block's label, "" without one.
func (c *Config) ClusterName() string {
	if c.cluster == nil {
		return ""
	}
	return c.cluster.name
}

// Variables are the variables with the values that are used, by name.
func (c *Config) Variables() []Variable {
	out := make([]Variable, 0, len(c.vars))
	for _, name := range sortedKeys(c.vars) {
		v := c.vars[name]
		value, _ := v.value.UnmarkDeep()
		out = append(out, Variable{Name: name, Value: value, Sensitive: v.sensitive, Given: v.given})
	}
	return out
}

// Load reads the definition in o.FS. The Config is never nil: with errors it
// holds what could be read, so that Evaluate can find more of them; such a
// Config gives no Definition to act upon.
func Load(o Options) (*Config, hcl.Diagnostics) {
	var c *Config
	var diags hcl.Diagnostics
	if !until(o.Stop, func() { c, diags = o.load() }) {
		empty := newConfig(o)
		empty.root = empty
		return empty, interrupted()
	}
	return c, diags
}

func (o Options) load() (*Config, hcl.Diagnostics) {
	if o.Dir == "" {
		o.Dir = "."
	}
	if o.ResourceTypes == nil {
		o.ResourceTypes = spec.ResourceTypes()
	}
	c := newConfig(o)
	c.reader = newReader()
	c.root, c.dir, c.dirs = c, ".", map[string]*Config{".": nil}
	c.files, c.schemas, c.shapes = map[string]*hcl.File{}, schemasOf(&o), map[shapeKey]*shape{}
	c.functions = withOwnAttributes(functions(o.FS))
	diags := c.read(openFiles(&c.opts, c.reader))
	if c.cluster == nil && !o.AllowUnset && !diags.HasErrors() { // an editor may look at a module by itself
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "No cluster block",
			Detail:   fmt.Sprintf("The definition in %s says nothing about the cluster itself. Add a block cluster \"NAME\" { quorum { model = \"majority_node_set\" } }.", o.Dir),
		})
	}
	diags = append(diags, c.readModules([]string{"."})...)
	c.reader = nil
	c.unsound = c.unsound || diags.HasErrors()
	diags = append(diags, c.assignVariables()...)
	diags = append(diags, c.place()...)
	for _, m := range c.parts {
		diags = append(diags, m.torn.first(m.checkRefs())...)
		diags = append(diags, m.torn.first(m.checkImports())...)
	}
	c.gatherMoves()
	c.gatherRemovals()
	diags = append(diags, c.checkMoves()...)
	diags = append(diags, c.checkRemovals()...)
	diags = append(diags, c.sortVertices()...)
	return c, tidy(diags)
}

// newConfig is a module of which nothing was read.
func newConfig(o Options) *Config {
	return &Config{
		opts:      o,
		modules:   map[string]*moduleCall{},
		vars:      map[string]*variable{},
		locals:    map[string]*local{},
		outputs:   map[string]*output{},
		providers: map[string]*providerDecl{},
		nodes:     map[string]*block{},
		fences:    map[string]*block{},
		groups:    map[string]*block{},
		machinery: map[string]map[string]*block{addr.TypeMachine: {}, addr.TypeNetwork: {}, addr.TypeVolume: {}},

		guarantees: map[string]*block{},
		checks:     map[string]*checkDecl{},
	}
}

// read reads the files of one module into c.
func (c *Config) read(f *files) hcl.Diagnostics {
	bodies, diags := c.bodies(f)
	for _, b := range bodies {
		diags = append(diags, c.torn.first(c.blocks(b))...)
	}
	return diags
}

// Suffix is how names of a definition's files end.
const Suffix = hclSuffix

// File name endings.
const (
	hclSuffix  = ".cluster.hcl"
	jsonSuffix = ".cluster.json"
	varsSuffix = ".vars.hcl"

	scenarioSuffix = ".scenario.hcl" // planner/scenario's
)

// Parse reads a file of a definition, or one with values, by the ending of its
// name. What it returns is never changed by this package.
func Parse(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if strings.HasSuffix(name, ".json") {
		d := tooDeep(src, name)
		if d == nil {
			d = numberBeyondJSON(src, name)
		}
		if d != nil {
			return &hcl.File{Body: hcl.EmptyBody(), Bytes: src}, hcl.Diagnostics{d}
		}
		return json.Parse(src, name)
	}
	return parseConfig(src, name)
}

// Blocks of the root, each with its description.
var rootBlocks = []rootBlock{
	{hcl.BlockHeaderSchema{Type: "clusterplan"}, settingsType},
	{hcl.BlockHeaderSchema{Type: "variable", LabelNames: []string{"name"}}, shapeType(variableSchema)},
	{hcl.BlockHeaderSchema{Type: "locals"}, localsType},
	{hcl.BlockHeaderSchema{Type: "provider", LabelNames: []string{"name"}}, providerType},
	{hcl.BlockHeaderSchema{Type: "cluster", LabelNames: []string{"name"}}, objectType(addr.TypeCluster, spec.ClusterSchema)},
	{hcl.BlockHeaderSchema{Type: "node", LabelNames: []string{"name"}}, objectType(addr.TypeNode, spec.NodeSchema)},
	{hcl.BlockHeaderSchema{Type: "fence", LabelNames: []string{"name"}}, objectType(addr.TypeFence, spec.FenceSchema)},
	{hcl.BlockHeaderSchema{Type: "group", LabelNames: []string{"name"}}, objectType(addr.TypeGroup, spec.GroupSchema)},
	{hcl.BlockHeaderSchema{Type: "guarantee", LabelNames: []string{"name"}}, objectType(addr.TypeGuarantee, spec.GuaranteeSchema)},
	{hcl.BlockHeaderSchema{Type: "output", LabelNames: []string{"name"}}, shapeType(outputSchema)},
	{hcl.BlockHeaderSchema{Type: "module", LabelNames: []string{"name"}}, moduleType},
	{hcl.BlockHeaderSchema{Type: "machine", LabelNames: []string{"name"}}, machineryType(addr.TypeMachine)},
	{hcl.BlockHeaderSchema{Type: "network", LabelNames: []string{"name"}}, machineryType(addr.TypeNetwork)},
	{hcl.BlockHeaderSchema{Type: "volume", LabelNames: []string{"name"}}, machineryType(addr.TypeVolume)},
	{hcl.BlockHeaderSchema{Type: "check", LabelNames: []string{"name"}}, shapeType(checkSchema)},
	{hcl.BlockHeaderSchema{Type: "moved"}, shapeType(movedSchema)},
	{hcl.BlockHeaderSchema{Type: "removed"}, shapeType(removedSchema)},
	{hcl.BlockHeaderSchema{Type: "import"}, shapeType(importSchema)},
}

var rootSchema, rootNames = rootBody()

func rootBody() (*hcl.BodySchema, []string) {
	out, names := &hcl.BodySchema{}, make([]string, len(rootBlocks))
	for i, r := range rootBlocks {
		out.Blocks = append(out.Blocks, r.BlockHeaderSchema)
		names[i] = r.Type
	}
	return out, names
}

// notYet is the diagnostic of everything that the language has and this
// version doesn't run.
func notYet(rng hcl.Range, what, instead string) *hcl.Diagnostic {
	return errorAt(rng, "Not supported yet", what+" is not supported by this version. "+instead)
}

func (c *Config) blocks(body hcl.Body) hcl.Diagnostics {
	content, diags := body.Content(rootSchema)
	suggest(diags, rootSchema, content)
	for _, d := range diags {
		if d.Summary == "Unsupported argument" && strings.HasSuffix(d.Detail, "not expected here.") {
			d.Detail += " Only blocks stand outside of all blocks, as group \"web\" {}; is the line that begins this one whole?"
		}
		if d.Summary == "Unsupported block type" && strings.HasSuffix(d.Detail, "not expected here.") {
			d.Detail += " Outside of all blocks stand: " + strings.Join(rootNames, ", ") + "."
		}
	}
	for _, b := range content.Blocks {
		if why := onlyRoot[b.Type]; why != "" && c != c.root {
			diags = append(diags, errorAt(b.DefRange, "Only in the root", fmt.Sprintf("A module can't have a %s block. %s Move it to the directory that the plan is made for.", b.Type, why)))
			continue
		}
		if len(b.Labels) > 0 && !ValidName(b.Labels[0]) {
			diags = append(diags, errorAt(b.LabelRanges[0], "Invalid name", fmt.Sprintf("%q can't stand in an address. A name is a letter or _, then letters, digits, _ and -.", b.Labels[0])))
			continue
		}
		switch b.Type {
		case "clusterplan":
			diags = append(diags, c.settings(b)...)
		case "variable":
			diags = append(diags, c.variable(b)...)
		case "locals":
			diags = append(diags, c.localsBlock(b)...)
		case "provider":
			diags = append(diags, c.provider(b)...)
		case "output":
			diags = append(diags, c.output(b)...)
		case "module":
			diags = append(diags, c.moduleBlock(b)...)
		case "cluster", "node", "fence", "group", "guarantee", "machine", "network", "volume":
			diags = append(diags, c.object(b)...)
		case "check":
			diags = append(diags, c.check(b)...)
		case "moved":
			diags = append(diags, c.movedBlock(b)...)
		case "removed":
			diags = append(diags, c.removedBlock(b)...)
		case "import":
			diags = append(diags, c.importBlock(b)...)
		}
	}
	return diags
}

func asciiName(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// duplicate is the diagnostic of a name that is already taken.
func duplicate(b *hcl.Block, what string, first hcl.Range) *hcl.Diagnostic {
	return errorAt(b.DefRange, "Duplicate "+b.Type, fmt.Sprintf("%s is already defined at %s. Rename one of the two.", what, first))
}

// tidy keeps the first of equal diagnostics, since instances of one block
// often have the same thing to say, and puts them in the order of the files.
func tidy(diags hcl.Diagnostics) hcl.Diagnostics {
	if len(diags) < 2 {
		return diags
	}
	type key struct {
		severity        hcl.DiagnosticSeverity
		summary, detail string
		subject         hcl.Range
	}
	seen := make(map[key]bool, len(diags))
	out := diags[:0:0]
	for _, d := range diags {
		k := key{d.Severity, d.Summary, d.Detail, hcl.Range{}}
		if d.Subject != nil {
			k.subject = *d.Subject
		}
		if !seen[k] {
			seen[k] = true
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return cmp.Compare(btoi(a.Subject != nil), btoi(b.Subject != nil))
		}
		return cmp.Or(cmp.Compare(a.Subject.Filename, b.Subject.Filename), cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte))
	})
	return out
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
