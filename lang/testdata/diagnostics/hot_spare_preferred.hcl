cluster "c" {
  configuration = "hot_spare"
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
  spare    = true
}

group "g" {
  preferred_owners = [node.n1, node.n3]
  failback {
    mode = "prevent"
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
}
