package lang

import (
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Where each object of a state is in the end, in both syntaxes.
func TestMovesLeadToOnePlace(t *testing.T) {
	native := map[string]string{"main.cluster.hcl": `
cluster "c" {
  quorum { model = "single_node" }
}
node "z" { provider = local }
moved {
  from = node.a
  to   = node.b
}
moved {
  from = node.b
  to   = node.z
}
moved {
  from = node.n
  to   = node.m
}
moved {
  from = node.n["odd one"]
  to   = node.odd
}
moved {
  from = node.count[1]
  to   = node.count["one"]
}
moved {
  from = group.db
  to   = group.sql
}
moved {
  from = group.sql.resource.ip
  to   = group.sql.resource.vip
}
moved {
  from = group.sql.resource.worker[0]
  to   = group.sql.resource.first
}
moved {
  from = fence.f
  to   = fence.g
}
`}
	asJSON := map[string]string{"main.cluster.json": `{
"cluster": {"c": {"quorum": {"model": "single_node"}}},
"node": {"z": {"provider": "local"}},
"moved": [
  {"from": "node.a", "to": "node.b"}, {"from": "node.b", "to": "node.z"}, {"from": "node.n", "to": "node.m"},
  {"from": "node.n[\"odd one\"]", "to": "node.odd"}, {"from": "node.count[1]", "to": "node.count[\"one\"]"},
  {"from": "group.db", "to": "group.sql"}, {"from": "group.sql.resource.ip", "to": "group.sql.resource.vip"},
  {"from": "group.sql.resource.worker[0]", "to": "group.sql.resource.first"}, {"from": "fence.f", "to": "fence.g"}
]}`}
	for _, files := range []map[string]string{native, asJSON} {
		c, diags := load(t, files)
		mustHaveNone(t, c, diags)
		_, diags = c.Evaluate(nil)
		mustHaveNone(t, c, diags)
		for from, want := range map[string]string{
			`node.a`:                          `node.z`, // a chain
			`node.b`:                          `node.z`,
			`node.z`:                          `node.z`,
			`node.n`:                          `node.m`,
			`node.n["k"]`:                     `node.m["k"]`, // a whole block
			`node.n["odd one"]`:               `node.odd`,    // but for one of it
			`node.count[1]`:                   `node.count["one"]`,
			`node.count[0]`:                   `node.count[0]`,
			`group.db`:                        `group.sql`,
			`group.db["eu"]`:                  `group.sql["eu"]`,
			`group.db.resource.app`:           `group.sql.resource.app`,
			`group.db.resource.ip`:            `group.sql.resource.vip`, // with its group, then by itself
			`group.db["eu"].resource.ip["4"]`: `group.sql["eu"].resource.vip["4"]`,
			`group.sql.resource.worker[0]`:    `group.sql.resource.first`,
			`group.sql.resource.worker[1]`:    `group.sql.resource.worker[1]`,
			`fence.f["x"]`:                    `fence.g["x"]`,
			`group.a`:                         `group.a`,
		} {
			a, err := addr.Parse(from)
			if err != nil {
				t.Fatal(err)
			}
			got, by := c.Moves().Final(a)
			if got.String() != want || (by != nil) != (from != want) {
				t.Errorf("%s is at %s by %+v, want %s", from, got, by, want)
			}
		}
	}
}
