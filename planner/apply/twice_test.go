package apply_test

import (
	"bytes"
	"encoding/json"
	"sync"
	"testing"
)

// Plans of one definition and one state can be made at the same time, and are the same:
// none writes to what the definition, the state or another plan has.
func TestPlansBesideEachOther(t *testing.T) {
	const src = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  for_each = toset(["a", "b", "c"])
  provider = local
  zone     = each.key
}
group "db" {
  preferred_owners = [node.n["a"], node.n["b"]]
  resource "generic_application" "app" { command = ["true", "1"] }
}
group "web" {
  count      = 3
  depends_on = [group.db]
  resource "generic_application" "one" { command = ["true", "1"] }
  resource "generic_application" "two" {
    command    = ["true", "1", node.n["a"].zone]
    depends_on = [resource.one]
    lifecycle { ignore_changes = [command] }
  }
  lifecycle { replace_triggered_by = [group.db] }
}
`
	l := newLab(t)
	l.must(l.load(src), "")
	def := l.load(string(bytes.ReplaceAll(bytes.Replace([]byte(src), []byte(`, "c"]`), []byte(`, "d"]`), 1), []byte(`"true", "1"`), []byte(`"true", "2"`))))
	text := func() []byte {
		p := l.plan(def, "")
		out, err := json.Marshal(p)
		if err != nil || p.Errored {
			t.Errorf("%v %v", err, p.Diagnostics)
		}
		return out
	}
	plans := make([][]byte, 5)
	plans[0] = text()
	var wg sync.WaitGroup
	for i := 1; i < len(plans); i++ {
		wg.Go(func() { plans[i] = text() })
	}
	wg.Wait()
	for i := 1; i < len(plans); i++ {
		if !bytes.Equal(plans[0], plans[i]) {
			t.Errorf("plan %d is another one:\n%s\n%s", i, plans[0], plans[i])
		}
	}
	l.must(def, "")
	l.settled(def)
}
