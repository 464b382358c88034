cluster "c" {
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

locals {
  missing = file("missing.txt")
  outside = file("../../etc/passwd")
  cidr    = cidrhost("10.0.0.0/30", 4)
}
