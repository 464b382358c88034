cluster "c" {
  configuration = "static_load_balancing"
  quorum {
    model = "majority_node_set"
  }
}

node "n1" {
  provider = local
  capacity = { cpu = 4 }
}

node "n2" {
  provider = local
  capacity = { cpu = 4 }
}

node "n3" {
  provider = local
  role     = "witness"
}

group "g1" {
  preferred_owners = [node.n1]
  demand           = { cpu = 2.5, memory = "1GiB" }
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "g2" {
  preferred_owners = [node.n2]
  demand           = { cpu = 2.5, memory = "1GiB" }
  resource "generic_application" "app" {
    command = ["true"]
  }
}
