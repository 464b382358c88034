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
  role     = "witness"
}

group "g" {
  preferred_owners = [node.n3, node.n1]
  possible_owners  = values({ for k, n in { a = node.n1, b = node.n3 } : k => n })
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "none" {
  possible_owners = [node.n3]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
