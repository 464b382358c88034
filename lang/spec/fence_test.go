package spec

import (
	"fmt"
	"testing"
	"time"
)

func TestFenceLevels(t *testing.T) {
	sec := func(n int) Duration { return Duration(time.Duration(n) * time.Second) }
	fences := []*Fence{
		{Name: "pdu-b", Level: 2, Timeout: sec(5), Nodes: []string{"n1", "n2"}},
		{Name: "ipmi", Level: 1, Timeout: sec(10), Delay: sec(3), Nodes: []string{"n1"}},
		{Name: "pdu-a", Level: 2, Timeout: sec(5), Delay: sec(1)},
		{Name: "other", Level: 1, Nodes: []string{"n3"}, Action: FenceReboot},
	}
	for node, want := range map[string]struct {
		levels string
		bound  time.Duration
	}{
		"n1": {"ipmi | pdu-a pdu-b", (31 + 3 + 16 + 16 + 1) * time.Second},
		"n2": {"pdu-a pdu-b", (16 + 16 + 1) * time.Second},
		"n3": {"other | pdu-a", (181 + 121 + 16 + 1) * time.Second},
		"n4": {"pdu-a", 17 * time.Second},
	} {
		levels, got := FenceLevels(fences, node), ""
		for i, level := range levels {
			if i > 0 {
				got += " |"
			}
			for _, f := range level {
				got += " " + f.Name
			}
		}
		if got != " "+want.levels || FenceBound(levels) != want.bound {
			t.Errorf("%s: levels%s, %v; want %s, %v", node, got, FenceBound(levels), want.levels, want.bound)
		}
	}
}

func TestShownAndCovered(t *testing.T) {
	f := Fence{Sensitive: []string{"ip"}, Parameters: map[string]string{"ip": "a", "password": "b", "bmc_passwd": "c", "lanplus": "1"}}
	if got := fmt.Sprint(f.Shown().Parameters); got != "map[bmc_passwd:(sensitive) ip:(sensitive) lanplus:1 password:(sensitive)]" || f.Parameters["password"] != "b" {
		t.Error(got)
	}
	d := &Definition{Nodes: []Node{{Name: "n1"}, {Name: "n2"}, {Name: "w", Role: RoleWitness}}, Fences: []Fence{{Nodes: []string{"n1"}}}}
	all, one := &Group{}, &Group{PossibleOwners: []string{"n1"}}
	if d.Covered(all) || !d.Covered(one) {
		t.Error("n2 is covered by none, n1 is")
	}
	if d.Fences = nil; d.Covered(one) {
		t.Error("there is no fence")
	}
}
