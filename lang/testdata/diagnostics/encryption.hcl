cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n1" {
  provider = local
}

clusterplan {
  encryption {
    recipients = []
  }
  encryption {
    passphrase = true
  }
  backend "nfs" {
  }
  backend "local" {
    path = var.path
  }
}
