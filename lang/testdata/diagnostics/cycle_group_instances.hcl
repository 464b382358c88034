cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n1" {
  provider = local
}

node "n2" {
  provider = local
}

node "n3" {
  provider = local
}

group "ring" {
  for_each   = { a = "b", b = "a", c = "a" }
  depends_on = [group.ring[each.value]]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
