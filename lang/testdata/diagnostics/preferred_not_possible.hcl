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

group "g" {
  preferred_owners = [node.n1, node.n2]
  possible_owners  = [node.n2, node.n3]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
