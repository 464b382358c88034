cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n1" {
  provider = local
  address  = "127.0.0.1:7401"
}

node "n2" {
  provider = local
  address  = "127.0.0.1"
  port     = 7401
}

node "n3" {
  provider = local
  address  = "127.0.0.1"
  port     = 7402
}

