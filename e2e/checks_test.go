package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

const conditions = `
check "web" {
  assert {
    condition     = group.web.state == "online" && group.web.owner != "n3"
    error_message = "Web is ${group.web.state} on ${group.web.owner}."
  }
}

check "nodes" {
  assert {
    condition     = alltrue([for n in [node.n1, node.n2, node.n3] : n.state == "up"])
    error_message = "Not all nodes are up."
  }
}

output "owner" {
  value = group.web.owner
  precondition {
    condition     = node.n1.endpoint != ""
    error_message = "n1 is nowhere."
  }
}

output "url" {`

// Checks, preconditions and postconditions with real agents: unknown before the
// apply, looked at after it; a failed check warns only; a postcondition that fails
// keeps what depends on the group from being made, and a plan file is not spared
// what has come to fail since.
func TestConditions(t *testing.T) {
	l := newLab(t)
	l.edit("\noutput \"url\" {", conditions)
	l.edit(`group "worker" {`, `group "worker" {
  lifecycle {
    postcondition {
      condition     = self.state == "online" && self.owner != group.web.owner
      error_message = "Worker is ${self.state} on ${self.owner}."
    }
  }`)
	l.edit(`group "web" {`, `group "web" {
  lifecycle {
    precondition {
      condition     = startswith(node.n1.endpoint, "127.9.")
      error_message = "n1 is at ${node.n1.endpoint}."
    }
  }`)
	l.edit("node \"n3\" {\n", `node "n3" {
  lifecycle {
    postcondition {
      condition     = self.state == "up" && self.endpoint != node.n1.endpoint
      error_message = "n3 is ${self.state} at ${self.endpoint}."
    }
  }
`)
	l.edit("mode  = \"immediate\"\n    delay = \"5s\"", "mode = \"prevent\"")
	l.must(0, "plan").wants(t, "Known after the apply: check.nodes, check.web.")
	// Only the apply knows where n1 is: web is not touched, and nothing that needs it.
	r := l.must(1, "apply", "--auto-approve")
	r.wants(t, "Precondition failed", "main.cluster.hcl line", "group.web: n1 is at 127.0.0.1:", "check.web", "1 failed")
	if names := l.status().Groups; len(names) > 0 && names[0].Name == "web" {
		t.Errorf("web is there: %+v", names)
	}
	l.must(1, "plan").wants(t, "Precondition failed", "group.web: n1 is at 127.0.0.1:")
	l.edit(`"127.9."`, `"127.0."`)
	r = l.must(0, "apply", "--auto-approve")
	if strings.Contains(r.out+r.stderr, "Check failed") {
		t.Errorf("checks fail once all is there: %s", r)
	}
	l.served("n1")
	l.must(0, "plan", "--detailed-exitcode").wants(t, "No changes")
	if owner := strings.TrimSpace(l.must(0, "output", "--raw", "owner").out); owner != "n1" {
		t.Errorf("the owner is %q", owner)
	}

	// What the plan was saved with comes to fail: not a check, which warns, but the
	// postcondition of worker, which nothing is done to.
	l.edit("\noutput \"url\" {", "\noutput \"more\" { value = \"more\" }\n\noutput \"url\" {")
	file := filepath.Join(t.TempDir(), "c.plan")
	l.must(0, "plan", "--out", file)
	worker := ""
	for _, g := range l.status().Groups {
		if g.Name == "worker" {
			worker = g.Owner
		}
	}
	l.must(0, "move", "web", worker)
	l.served(worker)
	l.must(1, "apply", file).wants(t, "Postcondition failed", "group.worker: Worker is online on "+worker)
	l.must(0, "move", "web", "n3")
	l.served("n3")
	l.until("web is online on n3", func() (bool, string) {
		r := l.run("plan", "--detailed-exitcode")
		return r.code == 2 && strings.Contains(r.stderr, "check.web: Web is online on n3."), r.String()
	})
	l.must(0, "apply", file).wants(t, "Web is online on n3.", "more")
	l.must(0, "move", "web", "n1")
	l.served("n1")

	// A node that is down makes nothing fail that the apply mends.
	l.kill("n2")
	l.until("n2 is seen to be down", func() (bool, string) {
		r := l.run("plan")
		return r.code == 0 && strings.Contains(r.out, "Known after the apply: check.nodes, check.web."), r.String()
	})
	r = l.must(0, "apply", "--auto-approve")
	if strings.Contains(r.stderr, "Not all nodes are up.") {
		t.Errorf("after the apply: %s", r)
	}
	l.destroyed()
}
