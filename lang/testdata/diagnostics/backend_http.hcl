# A state that is sent elsewhere is encrypted, and its password is not written here.
clusterplan {
  backend "http" {
    address  = "https://example.com/state"
    password = "x"
  }
}

cluster "c" {
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}
