package main

import (
	"encoding/json"
	"testing"
)

// What is measured is the matrix of every node, pair and zone, of groups that have
// somewhere to go; and it is printed by the names that others read.
func TestSmoke(t *testing.T) {
	const nodes = 8
	text, err := json.Marshal(measure(40, nodes, 3))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]float64
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got["scenarios"] != nodes+nodes*(nodes-1)/2+4 || got["ms"] <= 0 || got["max_ms"] < got["ms"] {
		t.Errorf("%s", text)
	}
}
