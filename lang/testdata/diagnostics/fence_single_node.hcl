cluster "c" {
  quorum {
    model = "single_node"
  }
}

node "n" {
  provider = local
}

fence "f" {
  agent = "local"
}
