package view

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// What nodes, programs and other people's files say in an error, a warning or an
// apply's progress never reaches a terminal as more than text.
func TestNothingMovesTheCursor(t *testing.T) {
	const evil = "a\x1b[2J\x1b]0;owned\a\u009b1A\u202eb\rc"
	src := []byte("# x\r\nname = \"ü\" # " + evil + " end\r\n")
	at := hcl.Range{Filename: "main.cluster.hcl", Start: hcl.Pos{Line: 2, Column: 8, Byte: 12}, End: hcl.Pos{Line: 2, Column: 11, Byte: 16}}
	files := map[string]*hcl.File{"main.cluster.hcl": {Bytes: src}}
	diags := hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Bad " + evil, Detail: "Of " + evil, Subject: &at}}
	var b bytes.Buffer
	s := Style{}
	s.Error(&b, &Hint{Err: errors.New(evil), Hint: evil})
	s.Error(&b, &DiagnosticsError{Diags: diags, Files: files})
	p := NewProgress(&b, s, false)
	p.Event(apply.Event{Type: apply.EventProgress, Addr: addr.Group("web", addr.StringKey(evil)), Action: "create", Text: evil})
	p.Event(apply.Event{Type: apply.EventWaiting, Text: evil})
	s.Unsettled(&b, []client.StatusGroup{{Name: "web", State: "failed", Reason: evil}})
	for _, r := range b.String() {
		if moves(r) && r != '\r' {
			t.Fatalf("%q is in\n%q", r, b.String())
		}
	}
	if strings.Contains(b.String(), "\rc") || !strings.Contains(b.String(), `name = "ü" # a?[2J?]0;owned?`) {
		t.Errorf("%q", b.String())
	}
	if !bytes.Equal(src, files["main.cluster.hcl"].Bytes) || !strings.Contains(diags[0].Detail, evil) {
		t.Error("what was shown was changed itself")
	}
}
