cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  name     = "same"
}

group "g" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "h" {
  name = "g"
  resource "generic_application" "app" {
    command = ["true"]
  }
}
