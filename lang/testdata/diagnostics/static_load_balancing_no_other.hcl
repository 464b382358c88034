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

group "g1" {
  preferred_owners = [node.n1]
  possible_owners  = [node.n1]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "g2" {
  preferred_owners = [node.n2]
  possible_owners  = [node.n2]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "g3" {
  preferred_owners = [node.n3]
  possible_owners  = [node.n3]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
