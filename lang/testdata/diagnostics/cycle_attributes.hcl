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
  resource "generic_application" "a" {
    command = resource.b.command
  }
  resource "generic_application" "b" {
    command = resource.a.command
  }
}
