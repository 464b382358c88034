cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  role     = "witness"
  votes    = each.key == "c" ? 0 : 1
  spare    = each.key == "b"
}

group "g" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}
