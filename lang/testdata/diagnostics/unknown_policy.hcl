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
  priority         = length(node.n1.endpoint)
  preferred_owners = node.n1.endpoint == "x" ? [node.n1] : [node.n2]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
