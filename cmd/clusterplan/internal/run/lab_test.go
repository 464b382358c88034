package run

import (
	"maps"
	"testing"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// While a node is replaced its name is the old one's in the lab too, and the new one has
// the name that the cluster knows it by: each can be cut off, and none by chance.
func TestLabOfReplacedNode(t *testing.T) {
	node := func(a addr.Address, id, dir string) statefile.Object {
		return statefile.Object{Addr: a, Type: addr.TypeNode, ID: id, Attributes: []byte(`{"name":"n1"}`), Private: []byte(`{"dir":"` + dir + `"}`)}
	}
	n1 := addr.Node("n1", addr.NoKey)
	objects := []statefile.Object{node(n1, "b", "n1-b"), node(n1.Depose("a"), "a", "n1")}
	for name, c := range map[string]struct {
		seats []string
		want  map[string]string
	}{
		"both are there":      {[]string{"n1", "n1-b"}, map[string]string{"n1": "n1", "n1-b": providers.SuccessorName("n1", "b")}},
		"the old one is gone": {[]string{"n1-b"}, map[string]string{"n1-b": "n1"}},
	} {
		l := &Lab{keys: map[string]string{}, names: map[string]string{}, record: netlab.Record{Seats: map[string]netlab.Seat{}}}
		for _, s := range c.seats {
			l.record.Seats[s] = netlab.Seat{}
		}
		l.know(objects)
		if !maps.Equal(l.names, c.want) {
			t.Errorf("%s: %v, want %v", name, l.names, c.want)
		}
	}
}
