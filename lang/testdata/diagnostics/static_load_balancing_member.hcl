cluster "c" {
  configuration = "static_load_balancing"
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

group "g" {
  preferred_owners = [node.n1]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
