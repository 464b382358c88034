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
  no_quorum = "freeze"
  resource "generic_application" "app" {
    command = ["true"]
  }
}
