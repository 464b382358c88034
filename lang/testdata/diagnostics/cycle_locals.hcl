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
  a = local.b
  b = "${local.c}!"
  c = [local.a]
  d = local.d
}
