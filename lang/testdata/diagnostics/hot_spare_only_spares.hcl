cluster "c" {
  configuration = "hot_spare"
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  spare    = true
}

