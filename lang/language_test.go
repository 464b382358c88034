package lang

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Everything that a definition can hold is described, and what is described is
// accepted: a block with all of its arguments raises no word about unknown ones.
func TestLanguage(t *testing.T) {
	providers := map[string]spec.Schema{"local": {Name: "local", Doc: "Processes.", Attributes: []spec.Attribute{{Name: "mode", Type: spec.TypeString, Doc: "How."}}}}
	all := Language(Options{Providers: providers})
	var look func(where string, b *BlockType)
	look = func(where string, b *BlockType) {
		if b.Doc == "" {
			t.Errorf("%s has no description", where)
		}
		for _, a := range b.Attributes {
			if a.Doc == "" || a.Type == "" {
				t.Errorf("%s.%s has no description or type", where, a.Name)
			}
		}
		for i := range b.Blocks {
			look(where+"."+b.Blocks[i].Name, &b.Blocks[i])
		}
		for i := range b.Types {
			look(where+" "+b.Types[i].Name, &b.Types[i])
		}
	}
	var src strings.Builder
	var write func(b *BlockType, label string)
	write = func(b *BlockType, label string) {
		src.WriteString(b.Name)
		for i := range b.Labels {
			if i == 0 && label != "" {
				src.WriteString(` "` + label + `"`)
			} else {
				src.WriteString(` "x"`)
			}
		}
		src.WriteString(" {\n")
		of := b.Of(label)
		for _, a := range of.Attributes {
			src.WriteString(a.Name + " = null\n")
		}
		for i := range of.Blocks {
			inner := &of.Blocks[i]
			if len(inner.Types) == 0 {
				write(inner, "")
			}
			for _, typ := range inner.Types {
				write(inner, typ.Name)
			}
		}
		src.WriteString("}\n")
	}
	for i := range all {
		look(all[i].Name, &all[i])
		for _, typ := range all[i].Types {
			write(&all[i], typ.Name)
		}
		if len(all[i].Types) == 0 {
			write(&all[i], "")
		}
	}
	_, diags := Load(Options{FS: fstest.MapFS{"main.cluster.hcl": {Data: []byte(src.String())}}, Providers: providers})
	for _, d := range diags {
		if strings.HasPrefix(d.Summary, "Unsupported") || strings.HasPrefix(d.Summary, "Extraneous") || strings.HasPrefix(d.Summary, "Missing") || d.Summary == "Not supported yet" {
			t.Errorf("%s: %s (%s)", d.Summary, d.Detail, d.Subject)
		}
	}
	for path, want := range map[string]string{"cluster": "link", "node": "ssh", "group.resource": "restart"} {
		b, in := (*BlockType)(nil), all
		for _, name := range strings.Split(path, ".") {
			b = findBlock(in, name)
			in = b.Blocks
		}
		d := b.Block("dynamic")
		if want == "" && d == nil {
			continue
		}
		if d == nil || findBlock(d.Types, want) == nil || findBlock(d.Types, "quorum") != nil || findBlock(d.Types, "lifecycle") != nil || d.Block("content") == nil || d.Attribute("for_each") == nil {
			t.Errorf("%s has dynamic %+v, want one of %q", path, d, want)
		}
	}
	if len(all) < 12 || findBlock(all, "group").Block("resource").Of("ip_address").Attribute("interface") == nil {
		t.Errorf("%d blocks, and a resource without its own attributes", len(all))
	}
}

// Every function says what it gives.
func TestFunctionDocs(t *testing.T) {
	known := map[string]bool{}
	for _, f := range Functions() {
		known[f.Name] = true
		if f.Doc == "" || !strings.HasPrefix(f.Signature, f.Name+"(") {
			t.Errorf("function %s has no description (functionDocs), or no signature: %q", f.Name, f.Signature)
		}
	}
	for name := range functionDocs {
		if !known[name] {
			t.Errorf("there is no function %s", name)
		}
	}
}
