cluster "c" {
  quorum {
    model  = "single_quorum"
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

