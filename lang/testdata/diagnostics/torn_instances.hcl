cluster "a" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b"])
}

node "m" {
  provider = local
  for_each
}

group "web" {
  preferred_owners = [node.n["a"], node.n["c"], node.m["x"], node.o["y"]]

  resource "generic_application" "server" {
    command = ["serve", node.m["x"].endpoint]
  }
}
