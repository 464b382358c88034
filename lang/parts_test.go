package lang

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// What is sound is read in parts as it is read whole.
func TestPartsOfSoundText(t *testing.T) {
	texts := definitions(t)
	for _, list := range [][]string{quickOnes, slowOnes, {
		"a = <<EOT\nb = 1\ngroup \"x\" {\nEOT\nc = 2\n", "locals {\n  a = <<-EOT\n  }\n  EOT\n}\nb {}\n",
		"/* group \"x\" {\n*/ a = 1\nb = 2\n", "a = [\nb,\nc\n]\nd {\n  e = \"${f(\"{\")}\" /* ] */\n}\ng = 1\n", "a = 1\r\nb {\r\n}\r\n",
	}} {
		for _, text := range list {
			texts = append(texts, []byte(text))
		}
	}
	sound := 0
	for _, src := range texts {
		want, bad := hclsyntax.ParseConfig(src, "x.hcl", hcl.InitialPos)
		got, diags := ParseParts(src, "x.hcl")
		if len(bad) > 0 {
			if !diags.HasErrors() {
				t.Errorf("nothing is wrong with\n%s\nbut: %v", src, bad)
			}
			continue
		}
		if sound++; len(diags) > 0 {
			t.Errorf("%v\nof sound\n%s", diags, src)
			continue
		}
		loops(want.Body.(*hclsyntax.Body), src, "x.hcl")
		w, g := want.Body.(*hclsyntax.Body), got.Body.(*hclsyntax.Body)
		if !reflect.DeepEqual(w.Attributes, g.Attributes) || !reflect.DeepEqual(w.Blocks, g.Blocks) {
			t.Errorf("another tree of\n%s\n%s", src, firstDifference("body", reflect.ValueOf(g), reflect.ValueOf(w)))
		}
	}
	if sound < 30 {
		t.Errorf("only %d sound texts", sound)
	}
}

// An error in one block hides no other, wherever the block is cut.
func TestPartsAroundAnError(t *testing.T) {
	const before, after = "variable \"v\" {\n}\n\n", "\n# then\ngroup \"after\" {\n  resource \"script\" \"s\" {\n  }\n}\n\noutput \"o\" {\n  value = <<EOT\n}\nEOT\n}\n"
	const block = "group \"broken\" {\n  list = [\n    1, # one {\n    \"two\",\n  ]\n  text = \"a ${var.b[\"c\"]} d\"\n  more {\n    x = f(1)\n  }\n}\n"
	for cut := 1; cut < len(block)-1; cut++ {
		src := before + block[:cut] + "\n" + after
		f, diags := ParseParts([]byte(src), "x.hcl")
		var names []string
		for _, b := range f.Body.(*hclsyntax.Body).Blocks {
			names = append(names, b.Type+" "+strings.Join(b.Labels, " "))
		}
		got := strings.Join(names, ", ")
		if !strings.HasPrefix(got, "variable v") || !strings.HasSuffix(got, "group after, output o") {
			t.Errorf("cut at %d: %s\n%s", cut, got, src)
		}
		_, whole := hclsyntax.ParseConfig([]byte(before+block[:cut]+"\n"), "x.hcl", hcl.InitialPos)
		if diags.HasErrors() != whole.HasErrors() {
			t.Errorf("cut at %d: %v, want %v", cut, diags, whole)
		}
		for _, d := range diags {
			if end := d.Subject.End.Byte; end <= len(before)-1 || end > len(before)+cut+2 {
				t.Errorf("cut at %d: %s", cut, d)
			}
		}
	}
}

func FuzzParts(f *testing.F) {
	for _, list := range [][]string{quickOnes, slowOnes} {
		for _, src := range list {
			f.Add([]byte(src))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, diags := ParseParts(src, "x.hcl")
		q := &quick{src: src, name: "x.hcl", place: place{line: 1}}
		if body, ok := q.file(); ok && (len(diags) > 0 || !reflect.DeepEqual(body, got.Body)) {
			t.Fatalf("in parts, %q is something else: %v", src, diags)
		}
		if bytes.Contains(src, bom) {
			return // hclsyntax passes over one at the beginning of what it reads
		}
		if _, bad := parseConfig(src, "x.hcl"); bad.HasErrors() && !diags.HasErrors() {
			t.Fatalf("in parts, nothing is wrong with %q, but: %v", src, bad)
		}
	})
}
