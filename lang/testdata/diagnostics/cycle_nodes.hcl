cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "a" {
  provider = local
  zone     = node.b.zone
}

node "b" {
  provider = local
  zone     = node.a.zone
}

node "c" {
  provider = local
  zone     = node.c.zone
}

