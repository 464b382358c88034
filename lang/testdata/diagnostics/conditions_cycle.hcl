cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}
group "a" {
  lifecycle {
    precondition {
      condition     = group.b.priority > 1
      error_message = "b first."
    }
  }
  resource "generic_application" "app" { command = ["true"] }
}
group "b" {
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle {
      postcondition {
        condition     = group.a.state == "online"
        error_message = "a first."
      }
    }
  }
}
