cluster "c" {
  quorum {
    model  = "single_quorum"
    device = "shared/quorum"
  }

  heartbeat {
    profile   = "custom"
    device_io = "300ms"
    lease     = "2s"
  }
}

node "n1" {
  provider = local
}

node "n2" {
  provider = local
  votes    = 0
}

node "n3" {
  provider = local
  role     = "witness"
}
