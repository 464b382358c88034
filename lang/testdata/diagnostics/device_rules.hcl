cluster "c" {
  quorum {
    model = "single_quorum"
  }
}

node "n" {
  provider = local
}
