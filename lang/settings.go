package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// settings reads the clusterplan block.
func (c *Config) settings(b *hcl.Block) hcl.Diagnostics {
	content, diags := contentIn(b, settingsBody)
	if a, ok := content.Attributes["required_version"]; ok {
		v, more := constant(a.Expr)
		diags = append(diags, more...)
		if !more.HasErrors() {
			if v.IsNull() || v.Type() != cty.String {
				diags = append(diags, errorAt(a.Expr.Range(), "Invalid version constraint", `required_version is a string, as ">= 0.1.0".`))
			} else if ok, err := satisfies(c.opts.Version, v.AsString()); err != nil {
				diags = append(diags, errorAt(a.Expr.Range(), "Invalid version constraint", err.Error()))
			} else if !ok {
				diags = append(diags, errorAt(a.Expr.Range(), "Another version is required", fmt.Sprintf("This is clusterplan %s, and the definition asks for %q. Use such a version, or change required_version.", c.opts.Version, v.AsString())))
			} else {
				c.RequiredVersion = v.AsString()
			}
		}
	}
	for _, inner := range content.Blocks {
		if inner.Type == "encryption" {
			diags = append(diags, c.encryption(inner)...)
		} else {
			diags = append(diags, c.backend(inner)...)
		}
	}
	if b := c.Backend; b != nil && b.Type != "local" && c.Encryption == nil {
		diags = append(diags, errorAt(b.Range, "Backend without encryption", fmt.Sprintf("The state holds the cluster's keys, and backend %q keeps it elsewhere: it is sent there encrypted or not at all. Add an encryption block to the clusterplan block.", b.Type)))
	}
	return diags
}

// encryption reads the encryption block. That its recipients are some is seen by
// who encrypts.
func (c *Config) encryption(b *hcl.Block) (diags hcl.Diagnostics) {
	if c.Encryption != nil {
		c.Encryption.Recipients, c.Encryption.Passphrase = nil, false
		return hcl.Diagnostics{errorAt(b.DefRange, "Duplicate encryption", "A definition has one encryption block, and its recipients are a list. Put the two into one.")}
	}
	e := &Encryption{Range: b.DefRange}
	defer func() {
		if diags.HasErrors() { // nothing is written for a part of those that it names
			e.Recipients, e.Passphrase = nil, false
		}
	}()
	content, diags := contentIn(b, encryptionBody)
	c.Encryption = e // also with errors: nobody takes the state for one in plain then
	if a, ok := content.Attributes["recipients"]; ok {
		e.Range = a.Expr.Range()
		v, more := writtenOut(a)
		diags = append(diags, more...)
		if !more.HasErrors() {
			list, err := convert.Convert(v, cty.List(cty.String))
			if err != nil || list.IsNull() || list.LengthInt() == 0 {
				return append(diags, errorAt(a.Expr.Range(), "Invalid recipients", `recipients is a list of public keys, as ["age1..."], with at least one.`))
			}
			for _, one := range list.AsValueSlice() {
				if one.IsNull() {
					return append(diags, errorAt(a.Expr.Range(), "Invalid recipients", "One of them is null. Take it out, or put a public key in its place."))
				}
				e.Recipients = append(e.Recipients, strings.TrimSpace(one.AsString()))
			}
		}
	}
	if a, ok := content.Attributes["passphrase"]; ok {
		v, more := writtenOut(a)
		diags = append(diags, more...)
		if !more.HasErrors() {
			if v.IsNull() || v.Type() != cty.Bool {
				return append(diags, errorAt(a.Expr.Range(), "Invalid passphrase", "passphrase is true or false. The passphrase itself stands in the environment variable CLUSTERPLAN_PASSPHRASE, never in a definition."))
			}
			e.Passphrase = v.True()
		}
	}
	if !diags.HasErrors() && e.Passphrase == (len(e.Recipients) > 0) {
		diags = append(diags, errorAt(b.DefRange, "Encryption for whom", `An encryption block has either recipients = ["age1..."], the public keys of those who can read the state, or passphrase = true, with the passphrase in CLUSTERPLAN_PASSPHRASE.`))
	}
	return diags
}

// backend reads the backend block.
func (c *Config) backend(b *hcl.Block) hcl.Diagnostics {
	at := slices.IndexFunc(backends, func(s spec.Schema) bool { return s.Name == b.Labels[0] })
	switch {
	case at < 0:
		return hcl.Diagnostics{errorAt(b.LabelRanges[0], "Unknown backend", fmt.Sprintf("There is no backend %q. This version has: %s.", b.Labels[0], backendNames()))}
	case c.Backend != nil:
		return hcl.Diagnostics{errorAt(b.DefRange, "Duplicate backend", "A definition has one backend. Remove one of the two.")}
	}
	content, diags := contentIn(b, bodyOf(backends[at]))
	c.Backend = &Backend{Type: b.Labels[0], Settings: map[string]string{}, Range: b.DefRange}
	for _, arg := range backends[at].Attributes {
		a, ok := content.Attributes[arg.Name]
		if !ok {
			continue
		}
		v, more := writtenOut(a)
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		text, err := convert.Convert(v, cty.String)
		if err != nil || text.IsNull() || text.AsString() == "" || arg.Type == spec.TypeString && v.Type() != cty.String {
			diags = append(diags, errorAt(a.Expr.Range(), "Invalid "+arg.Name, fmt.Sprintf("%s is a %s, written out. %s", arg.Name, arg.Type, arg.Doc)))
			continue
		}
		c.Backend.Settings[arg.Name] = text.AsString()
	}
	return diags
}

// BackendSetting tells whether a backend has a setting of this name.
func BackendSetting(backend, name string) bool {
	return slices.ContainsFunc(backends, func(s spec.Schema) bool {
		return s.Name == backend && slices.ContainsFunc(s.Attributes, func(a spec.Attribute) bool { return a.Name == name })
	})
}

func backendNames() string {
	names := make([]string, len(backends))
	for i := range backends {
		names[i] = backends[i].Name
	}
	return strings.Join(names, ", ")
}

// writtenOut is the value of an argument that is needed before variables have theirs.
func writtenOut(a *hcl.Attribute) (cty.Value, hcl.Diagnostics) {
	if refs := a.Expr.Variables(); len(refs) > 0 {
		return cty.DynamicVal, hcl.Diagnostics{errorAt(refs[0].SourceRange(), "Not a literal",
			fmt.Sprintf("%s is needed before anything else is read, and refers to nothing. Write the value out.", a.Name))}
	}
	return constant(a.Expr)
}
