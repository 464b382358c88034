cluster "c" {
  quorum {
    model  = "majority_node_set"
    device = "/shared/quorum"
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

