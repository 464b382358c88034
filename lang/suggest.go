package lang

import (
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// nearest is the known name most like name, or "" where none is like it.
func nearest(name string, known []string) string {
	best, bestDist := "", 3
	if len(name) < 5 {
		bestDist = 2
	}
	bestDist++
	for _, k := range known {
		if d := distance(name, k, bestDist); d < bestDist {
			best, bestDist = k, d
		}
	}
	return best
}

// Nearest is the known name most like name, or "" where none is like it.
func Nearest(name string, known []string) string { return nearest(name, known) }

// distance is Levenshtein's, given up at limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag, least := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
			least = min(least, row[j+1])
		}
		if least >= limit {
			return limit
		}
	}
	return row[len(b)]
}

// didYouMean is " Did you mean X?", or, with nothing near, what there is.
func didYouMean(prefix, name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return " Did you mean " + prefix + n + "?"
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func errorAt(rng hcl.Range, summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: rng.Ptr()}
}

func warningAt(rng hcl.Range, summary, detail string) *hcl.Diagnostic {
	d := errorAt(rng, summary, detail)
	d.Severity = hcl.DiagWarning
	return d
}

// suggest has hcl's diagnostics of names name the one that is nearest of what the
// body has not. hcl takes the first that is near: for vote, zone before votes.
func suggest(diags hcl.Diagnostics, want *hcl.BodySchema, has *hcl.BodyContent) {
	for _, d := range diags {
		head, _, ok := strings.Cut(d.Detail, ` Did you mean "`)
		if !ok {
			if d.Summary == "Unsupported block type" {
				_, rest, _ := strings.Cut(head, `"`)
				given, _, _ := strings.Cut(rest, `"`)
				d.Detail += terraforms[given]
			}
			continue
		}
		var names []string
		if d.Summary != "Unsupported block type" {
			for _, a := range want.Attributes {
				if has.Attributes[a.Name] == nil {
					names = append(names, a.Name)
				}
			}
		}
		if d.Summary != "Unsupported argument" {
			for _, b := range want.Blocks {
				names = append(names, b.Type)
			}
		}
		_, rest, _ := strings.Cut(head, `"`)
		given, _, _ := strings.Cut(rest, `"`)
		if n := nearest(given, names); n != "" {
			d.Detail = fmt.Sprintf("%s Did you mean %q?", head, n)
		}
	}
}

// terraforms says of blocks that Terraform has what stands for them here.
var terraforms = map[string]string{
	"terraform":   " What Terraform has there stands in a clusterplan block: required_version, backend, encryption.",
	"resource":    " A resource stands in a group, which is what fails over: group \"web\" { resource ... }.",
	"data":        " There are no data blocks: files are read by functions, and what answers on the network a resource's is_alive watches.",
	"provisioner": " There are no provisioners: a resource of type generic_application runs its command, and one of type script what starts and stops it.",
	"connection":  " How a node is reached stands in its ssh block, or in that of its provider.",
}
