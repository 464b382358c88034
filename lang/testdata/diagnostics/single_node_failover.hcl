cluster "c" {
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}

group "g" {
  failover {
    mode = "automatic"
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
}
