# A state that is pushed elsewhere is encrypted, and its password is not written here.
clusterplan {
  backend "git" {
    ref      = var.name
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
