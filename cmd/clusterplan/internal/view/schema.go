package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
)

// schemaJSON is what schema --json prints.
type schemaJSON struct {
	FormatVersion string         `json:"format_version"`
	Blocks        []blockJSON    `json:"blocks"`
	Functions     []functionJSON `json:"functions"`
}

type blockJSON struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Labels      []string        `json:"labels"`
	Repeated    bool            `json:"repeated"`
	Open        bool            `json:"open"`
	Attributes  []attributeJSON `json:"attributes"`
	Blocks      []blockJSON     `json:"blocks"`
	Types       []blockJSON     `json:"types,omitempty"`
}

type attributeJSON struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Description string   `json:"description"`
	Required    bool     `json:"required"`
	Computed    bool     `json:"computed"`
	Default     any      `json:"default,omitempty"`
	Values      []string `json:"values,omitempty"`
	KnownAtPlan bool     `json:"known_at_plan"`
	Sensitive   bool     `json:"sensitive"`
	Impact      string   `json:"impact"`
}

type functionJSON struct {
	Name        string `json:"name"`
	Signature   string `json:"signature"`
	Description string `json:"description"`
}

// SchemaJSON describes blocks and functions as one JSON object.
func SchemaJSON(w io.Writer, blocks []lang.BlockType, functions []lang.Function) error {
	out := schemaJSON{FormatVersion: planner.FormatVersion, Blocks: blocksJSON(blocks), Functions: []functionJSON{}}
	for _, f := range functions {
		out.Functions = append(out.Functions, functionJSON{f.Name, f.Signature, f.Doc})
	}
	return JSON(w, out)
}

func blocksJSON(all []lang.BlockType) []blockJSON {
	out := make([]blockJSON, 0, len(all))
	for i := range all {
		b := &all[i]
		one := blockJSON{Name: b.Name, Description: b.Doc, Labels: b.Labels, Repeated: b.Repeated, Open: b.Open,
			Attributes: make([]attributeJSON, 0, len(b.Attributes)), Blocks: blocksJSON(b.Blocks)}
		if one.Labels == nil {
			one.Labels = []string{}
		}
		if len(b.Types) > 0 {
			one.Types = blocksJSON(b.Types)
		}
		for _, a := range b.Attributes {
			impact := a.Impact
			if impact == "" {
				impact = spec.ImpactNone
			}
			one.Attributes = append(one.Attributes, attributeJSON{a.Name, string(a.Type), a.Doc, a.Required, a.Computed, a.Default, a.Values, a.KnownAtPlan, a.Sensitive, string(impact)})
		}
		out = append(out, one)
	}
	return out
}

// Schema lists all blocks, each with a line.
func Schema(w io.Writer, s Style, blocks []lang.BlockType) error {
	var b strings.Builder
	for i := range blocks {
		t := &blocks[i]
		fmt.Fprintf(&b, "%s\n    %s\n", s.Bold(header(t)), t.Doc)
	}
	b.WriteString("\nclusterplan schema BLOCK tells what is in one: schema group, schema group.failover.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// Block tells what stands in one block.
func Block(w io.Writer, s Style, t *lang.BlockType) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n    %s\n", s.Bold(header(t)), t.Doc)
	if t.Open {
		b.WriteString("\nAttributes of any name.\n")
	}
	if len(t.Attributes) > 0 {
		b.WriteString("\nAttributes:\n")
	}
	for _, a := range t.Attributes {
		facts := string(a.Type)
		if a.Required {
			facts += ", required"
		}
		if a.Default != nil {
			text, err := json.Marshal(a.Default)
			if err != nil {
				return err
			}
			facts += ", default " + string(text)
		}
		if a.Computed {
			facts += ", worked out by an apply"
		}
		if a.Sensitive {
			facts += ", never shown"
		}
		if a.Impact != "" && a.Impact != spec.ImpactNone {
			facts += ", a change: " + string(a.Impact)
		}
		fmt.Fprintf(&b, "  %s  %s\n      %s\n", s.Bold(a.Name), facts, a.Doc)
		if len(a.Values) > 0 {
			fmt.Fprintf(&b, "      One of %s.\n", strings.Join(a.Values, ", "))
		}
	}
	if len(t.Blocks) > 0 {
		b.WriteString("\nBlocks:\n")
	}
	for i := range t.Blocks {
		fmt.Fprintf(&b, "  %s\n      %s\n", s.Bold(header(&t.Blocks[i])), t.Blocks[i].Doc)
	}
	if len(t.Types) > 0 && !strings.Contains(t.Name, `"`) {
		fmt.Fprintf(&b, "\nBy %s:\n", t.Labels[0])
		for i := range t.Types {
			fmt.Fprintf(&b, "  %s\n      %s\n", s.Bold(t.Types[i].Name), t.Types[i].Doc)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// header is how a block begins: resource "TYPE" "NAME".
func header(t *lang.BlockType) string {
	out := t.Name
	for _, l := range t.Labels {
		if strings.Contains(t.Name, `"`) && l == t.Labels[0] {
			continue // it is there
		}
		out += fmt.Sprintf(" %q", strings.ToUpper(l))
	}
	return out
}
