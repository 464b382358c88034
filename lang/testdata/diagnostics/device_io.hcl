cluster "c" {
  quorum {
    model = "majority_node_set"
  }

  heartbeat {
    profile   = "custom"
    device_io = "300ms"
  }
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}


