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

group "a" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "b" {
  resource "generic_application" "other" {
    command    = ["true"]
    depends_on = [resource.app]
  }
}
