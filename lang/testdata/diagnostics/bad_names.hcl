cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["../etc", "b", "c"])
}

group "g" {
  resource "generic_application" "app" {
    for_each = toset(["x y"])
    command  = ["true"]
  }
}
