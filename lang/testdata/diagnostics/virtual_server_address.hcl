cluster "c" {
  configuration = "virtual_server"
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}

group "g" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}
