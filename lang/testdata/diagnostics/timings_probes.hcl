cluster "c" {
  quorum { model = "majority_node_set" }
  heartbeat {
    profile      = "custom"
    interval     = "500ms"
    reply_within = "200ms"
    lease        = "8.4s"
    probe {
      count = 4
      every = "700ms"
    }
    probe {
      count  = 14
      within = "3150ms"
    }
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}
