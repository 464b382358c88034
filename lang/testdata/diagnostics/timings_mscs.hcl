cluster "c" {
  heartbeat {
    profile = "mscs"
    lease   = "5s"
  }
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

