cluster "c" {
  configuration = "partial"
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

group "stays" {
  failover {
    mode = "none"
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "moves" {
  depends_on = [group.stays]
  resource "generic_application" "app" {
    command = ["true"]
  }
}
