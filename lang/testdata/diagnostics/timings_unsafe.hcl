cluster "c" {
  heartbeat {
    profile  = "custom"
    interval = "50ms"
    lease    = "300ms"
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

