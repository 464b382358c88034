package lang

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/schema"
)

// EnvPrefix starts the names of environment variables that give values.
const EnvPrefix = "CLUSTERPLAN_VAR_"

type variable struct {
	name        string
	rng         hcl.Range
	typ         cty.Type
	shape       *typeShape // nil: typ says all
	defaults    *typeexpr.Defaults
	deflt       cty.Value // cty.NilVal: required
	nullable    bool
	sensitive   bool
	validations []validation

	value cty.Value // converted and marked; unknown after an error
	given bool      // it is not the default
}

type validation struct {
	condition, message *expr
	rng                hcl.Range
}

func (c *Config) variable(b *hcl.Block) hcl.Diagnostics {
	name := b.Labels[0]
	if first, ok := c.vars[name]; ok {
		return hcl.Diagnostics{duplicate(b, "var."+name, first.rng)}
	}
	v := &variable{name: name, rng: b.DefRange, typ: cty.DynamicPseudoType, nullable: true, value: cty.DynamicVal}
	c.vars[name] = v
	content, diags := contentIn(b, variableBody)
	if a, ok := content.Attributes["type"]; ok {
		diags = append(diags, v.readType(a.Expr)...)
	}
	literalBool := func(name string, into *bool) {
		a, ok := content.Attributes[name]
		if !ok {
			return
		}
		val, more := constant(a.Expr)
		diags = append(diags, more...)
		if !more.HasErrors() {
			if val.IsNull() || val.Type() != cty.Bool {
				diags = append(diags, errorAt(a.Expr.Range(), "Invalid value", name+" is true or false, literally."))
			} else {
				*into = val.True()
			}
		}
	}
	literalBool("nullable", &v.nullable)
	literalBool("sensitive", &v.sensitive)
	if a, ok := content.Attributes["description"]; ok {
		val, more := constant(a.Expr)
		diags = append(diags, more...)
		if !more.HasErrors() && (val.IsNull() || val.Type() != cty.String) {
			diags = append(diags, errorAt(a.Expr.Range(), "Invalid value", "description is a literal string."))
		}
	}
	if a, ok := content.Attributes["default"]; ok {
		val, more := constant(a.Expr)
		diags = append(diags, more...)
		v.deflt = cty.DynamicVal
		if !more.HasErrors() {
			val, d := v.convert(val, a.Expr.Range(), "The default")
			v.deflt = val
			diags = append(diags, d...)
		}
	}
	for _, inner := range content.Blocks {
		vc, more := contentIn(inner, conditionBody)
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		condition, more := c.compile(vc.Attributes["condition"].Expr, true)
		diags = append(diags, more...)
		message, more := c.compile(vc.Attributes["error_message"].Expr, false)
		diags = append(diags, more...)
		v.validations = append(v.validations, validation{condition, message, inner.DefRange})
	}
	return diags
}

// compile compiles an expression and gives it its slot.
func (c *Config) compile(e hcl.Expression, wantRef bool) (*expr, hcl.Diagnostics) {
	native, diags := compile(e, wantRef)
	out := &expr{Expression: native, id: c.exprs, bad: diags.HasErrors()}
	c.exprs++
	switch v, literal := literally(native); {
	case out.bad:
	case literal:
		out.Expression = &hclsyntax.LiteralValueExpr{Val: v, SrcRange: native.Range()}
	default:
		out.refs = findRefs(native)
		diags = append(diags, c.iterators.take(out)...)
	}
	return out, diags
}

// compileOver compiles for_each or count. In JSON a plain string there is an
// expression; in a list or a map that stands there itself, strings are strings.
func (c *Config) compileOver(e hcl.Expression) (*expr, hcl.Diagnostics) {
	if _, native := e.(hclsyntax.Expression); native {
		return c.compile(e, false)
	}
	_, noList := hcl.ExprList(e)
	_, noMap := hcl.ExprMap(e)
	return c.compile(e, noList.HasErrors() && noMap.HasErrors())
}

func (v *variable) readType(e hcl.Expression) hcl.Diagnostics {
	for _, t := range e.Variables() {
		if isObject(t.RootName()) {
			shape, diags := readShape(e)
			if shape != nil {
				v.typ, v.shape = cty.DynamicPseudoType, shape
			}
			return diags
		}
	}
	// JSON and older habits write types as strings.
	typ, defaults, diags := typeexpr.TypeConstraintWithDefaults(e)
	if diags.HasErrors() {
		return diags
	}
	v.typ, v.defaults = typ, defaults
	return nil
}

// convert brings a value to the variable's type.
func (v *variable) convert(val cty.Value, rng hcl.Range, what string) (cty.Value, hcl.Diagnostics) {
	text := pathError
	if v.sensitive || schema.IsSensitive(val) {
		text = conversionError // a path has keys of the value
	}
	if val.IsNull() && !v.nullable {
		return cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep()), hcl.Diagnostics{errorAt(rng, "Value is null", fmt.Sprintf("%s of var.%s is null, which its nullable = false excludes.", what, v.name))}
	}
	if v.shape != nil {
		out, err := v.shape.fit(val)
		if err != nil {
			return cty.DynamicVal, hcl.Diagnostics{errorAt(rng, "Value has the wrong type", fmt.Sprintf("%s of var.%s doesn't fit its type %s: %s.", what, v.name, v.shape, text(err)))}
		}
		if beyond(out) {
			return cty.DynamicVal, hcl.Diagnostics{tooLargeFor(rng, what, v.name)}
		}
		return out, nil
	}
	if who, should := losesIdentity(val, v.typ, nil); who != "" {
		return cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep()), hcl.Diagnostics{errorAt(rng, "Value has the wrong type", fmt.Sprintf("%s of var.%s has %s in it, and the type %s would make a look-alike of that, which nothing knows any more. Declare the variable with type = %s, or give it the attributes that it asks for one by one.", what, v.name, who, typeexpr.TypeString(v.typ), should))}
	}
	if v.defaults != nil && !val.IsNull() {
		val = v.defaults.Apply(val)
	}
	out, err := convert.Convert(val, v.typ)
	if err != nil {
		return cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep()), hcl.Diagnostics{errorAt(rng, "Value has the wrong type", fmt.Sprintf("%s of var.%s doesn't fit its type %s: %s.", what, v.name, typeexpr.TypeString(v.typ), text(err)))}
	}
	if hasNumbers(v.typ) && beyond(out) {
		return cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep()), hcl.Diagnostics{tooLargeFor(rng, what, v.name)}
	}
	return out, nil
}

// pathError puts a cty path in front of its error's text.
func pathError(err error) string {
	var pe cty.PathError
	if e, ok := err.(cty.PathError); ok {
		pe = e
	}
	if len(pe.Path) > 0 {
		return schema.PathString(pe.Path) + ": " + err.Error()
	}
	return err.Error()
}

// conversionError is an error's text without the path to the part that it is about.
func conversionError(err error) string {
	return err.Error() + " (the value is sensitive, so the part that is wrong isn't shown)"
}

// given is a value for a variable with its source.
type given struct {
	name   string
	expr   hcl.Expression // nil: text or value
	text   string
	value  cty.Value
	source string
	rng    hcl.Range
	file   bool // from a vars file: an unknown name is only a warning
	env    bool // from the environment: unknown names are none of ours
}

// assignVariables gives each variable its value.
func (c *Config) assignVariables() hcl.Diagnostics {
	var diags hcl.Diagnostics
	var all []given
	for _, kv := range c.opts.Env {
		key, text, _ := strings.Cut(kv, "=")
		if name, ok := strings.CutPrefix(key, EnvPrefix); ok {
			all = append(all, given{name: name, text: text, source: "environment variable " + key, env: true})
		}
	}
	for _, e := range c.autoVarsFiles() {
		name, full := e.Name(), path.Join(c.opts.Dir, e.Name())
		if !ends(c.opts.FS, e) {
			diags = append(diags, endless("Can't read a vars file", full))
			continue
		}
		src, err := fs.ReadFile(c.opts.FS, name)
		if err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Can't read a vars file", Detail: fmt.Sprintf("%s: %s.", full, err)})
			continue
		}
		g, more := c.varsFile(full, src)
		diags = append(diags, more...)
		all = append(all, g...)
	}
	for _, in := range c.opts.Vars {
		switch {
		case in.File != "":
			g, more := c.varsFile(in.File, in.Src)
			diags = append(diags, more...)
			all = append(all, g...)
		case in.Value != cty.NilVal:
			all = append(all, given{name: in.Name, value: in.Value, source: in.Source})
		default:
			source := in.Source
			if source == "" {
				source = "--var"
			}
			all = append(all, given{name: in.Name, text: in.Text, source: source})
		}
	}
	diags = append(diags, c.terraformFiles()...)
	last := map[string]given{}
	for _, g := range all {
		if _, ok := c.vars[g.name]; !ok {
			if g.env {
				continue
			}
			diags = append(diags, c.undeclared(g))
			continue
		}
		last[g.name] = g
	}
	attrs := make(map[string]cty.Value, len(c.vars))
	for _, name := range sortedKeys(c.vars) {
		v := c.vars[name]
		val := v.deflt
		g, ok := last[name]
		switch {
		case ok:
			var more hcl.Diagnostics
			val, more = c.givenValue(v, g)
			v.given = true
			diags = append(diags, more...)
		case val == cty.NilVal && c.opts.AllowUnset:
			val = cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep())
		case val == cty.NilVal:
			detail := fmt.Sprintf("var.%s has no default and was given no value. Use --var '%s=...', a line in auto%s, or the environment variable %s%s.", name, name, varsSuffix, EnvPrefix, name)
			if c.forTerraform(name) {
				detail += fmt.Sprintf(" %s%[2]s is set, which only Terraform reads.", terraformEnv, name)
			}
			diags = append(diags, errorAt(v.rng, "No value for a variable", detail))
			val = cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep())
		case !c.opts.AllowUnset && c.forTerraform(name):
			diags = append(diags, warningAt(v.rng, "A value for Terraform is not read", fmt.Sprintf("var.%s keeps its default, though %[2]s%[1]s is set: only Terraform reads that. The environment variable is %[3]s%[1]s here.", name, terraformEnv, EnvPrefix)))
		}
		if v.sensitive {
			val = val.Mark(schema.Sensitive)
		}
		v.value = val
		attrs[name] = val
	}
	c.varsValue = cty.ObjectVal(attrs)
	return diags
}

// terraformEnv starts the names of the environment variables that Terraform reads.
const terraformEnv = "TF_VAR_"

// forTerraform tells whether the environment has a value of Terraform's for a variable.
func (c *Config) forTerraform(name string) bool {
	return slices.ContainsFunc(c.opts.Env, func(kv string) bool { return strings.HasPrefix(kv, terraformEnv+name+"=") })
}

// terraformFiles warns of vars files that only Terraform reads by itself. Beside
// files of its own they are nothing to wonder about, nor are those that --var-file named.
func (c *Config) terraformFiles() hcl.Diagnostics {
	if c.opts.FS == nil || c.opts.AllowUnset {
		return nil
	}
	entries, err := fs.ReadDir(c.opts.FS, ".")
	if err != nil {
		return nil // told by readFiles
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		stem := strings.TrimSuffix(name, ".json")
		switch {
		case e.IsDir():
		case strings.HasSuffix(stem, ".tf"):
			return nil
		case stem == "terraform.tfvars", strings.HasSuffix(stem, ".auto.tfvars"):
			if fi, err := fs.Stat(c.opts.FS, name); err != nil || !fi.Mode().IsRegular() {
				continue // to read a pipe takes until somebody writes to it
			}
			src, err := fs.ReadFile(c.opts.FS, name)
			if err == nil && slices.ContainsFunc(c.opts.Vars, func(in VarInput) bool { return in.File != "" && bytes.Equal(in.Src, src) }) {
				continue
			}
			names = append(names, path.Join(c.opts.Dir, name))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return hcl.Diagnostics{{Severity: hcl.DiagWarning, Summary: "Values for Terraform are not read", Detail: fmt.Sprintf(
		"Only Terraform reads %s by itself. Here auto%[2]s and *.auto%[2]s in the definition's directory are read so, which are written the same way: rename it, or name it with --var-file.", strings.Join(names, ", "), varsSuffix)}}
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (c *Config) autoVarsFiles() []fs.DirEntry {
	var first, rest []fs.DirEntry
	if c.opts.FS == nil {
		return nil
	}
	entries, err := fs.ReadDir(c.opts.FS, ".")
	if err != nil {
		return nil // told by readFiles
	}
	for _, e := range entries { // in the order of their names
		switch name := e.Name(); {
		case e.IsDir():
		case name == "auto"+varsSuffix:
			first = append(first, e)
		case strings.HasSuffix(name, ".auto"+varsSuffix):
			rest = append(rest, e)
		}
	}
	return append(first, rest...)
}

func (c *Config) varsFile(name string, src []byte) ([]given, hcl.Diagnostics) {
	f, diags := c.opts.parse(src, name)
	if f == nil || f.Body == nil {
		return nil, diags
	}
	c.files[name] = f
	attrs, more := f.Body.JustAttributes()
	diags = append(diags, more...)
	var out []given
	for _, key := range sortedKeys(attrs) {
		a := attrs[key]
		out = append(out, given{name: key, expr: a.Expr, source: "vars file " + name, rng: a.NameRange, file: true})
	}
	return out, diags
}

// CheckVars tells what is wrong with a vars file that isn't loaded: its syntax,
// names that the definition doesn't have, values that don't fit.
func (c *Config) CheckVars(name string, src []byte) hcl.Diagnostics {
	list, diags := c.varsFile(name, src)
	for _, g := range list {
		if v, ok := c.vars[g.name]; ok {
			_, more := c.givenValue(v, g)
			diags = append(diags, more...)
		} else {
			diags = append(diags, c.undeclared(g))
		}
	}
	return tidy(diags)
}

// undeclared is the diagnostic of a value for a variable that there isn't.
func (c *Config) undeclared(g given) *hcl.Diagnostic {
	detail := fmt.Sprintf("%s gives a value to %q, and the definition has no such variable.%s", upperFirst(g.source), g.name, didYouMean("", g.name, sortedKeys(c.vars)))
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Undeclared variable", Detail: detail}
	if g.file {
		d.Severity, d.Subject = hcl.DiagWarning, g.rng.Ptr()
	}
	return d
}

func (c *Config) givenValue(v *variable, g given) (cty.Value, hcl.Diagnostics) {
	unknown := cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep())
	rng := g.rng
	val := g.value
	switch {
	case g.expr != nil:
		var diags hcl.Diagnostics
		rng = g.expr.Range()
		if val, diags = g.expr.Value(nil); diags.HasErrors() {
			return unknown, v.unshown(g, diags)
		}
	case g.value == cty.NilVal && (v.typ.IsPrimitiveType() || v.typ == cty.DynamicPseudoType):
		val = cty.StringVal(g.text)
	case g.value == cty.NilVal:
		// A made-up file, so that what is wrong within the text can be shown.
		name := fmt.Sprintf("<%s %s>", g.source, v.name)
		if !v.sensitive {
			c.files[name] = &hcl.File{Bytes: []byte(g.text)}
		}
		if d := numberBeyond([]byte(g.text), name, hcl.InitialPos, hclsyntax.LexExpression); d != nil {
			return unknown, v.unshown(g, hcl.Diagnostics{d})
		}
		e, diags := parseExpression([]byte(g.text), name, hcl.InitialPos)
		if !diags.HasErrors() {
			rng = e.Range()
			val, diags = e.Value(nil)
		}
		if diags.HasErrors() {
			return unknown, v.unshown(g, diags)
		}
	}
	if rng.Filename == "" || v.sensitive { // a diagnostic shows the lines that it is about
		rng = v.rng // text has no place of its own
	}
	return v.convert(val, rng, "The value from "+g.source)
}

// unshown says of a sensitive variable's value no more than that it is wrong.
func (v *variable) unshown(g given, diags hcl.Diagnostics) hcl.Diagnostics {
	if !v.sensitive {
		return diags
	}
	return hcl.Diagnostics{errorAt(v.rng, "Invalid value for a variable", fmt.Sprintf("The value from %s of var.%s is no expression of literals. The variable is sensitive, so it isn't shown.", g.source, v.name))}
}
