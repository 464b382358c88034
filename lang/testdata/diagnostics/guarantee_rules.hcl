cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset([for i in range(45) : format("n%02d", i)])
}

group "web" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}

guarantee "empty" {
  groups   = []
  survives = { nodes = 1 }
}

guarantee "nothing" {
  groups = [group.web]
}

guarantee "kinds" {
  groups   = [group.web]
  survives = { nodes = 1, racks = 1 }
}

guarantee "zones" {
  groups   = [group.web]
  survives = { zones = 1 }
}

guarantee "many" {
  groups   = [group.web]
  survives = { nodes = 4 }
}

guarantee "a" {
  for_each = { b = group.web }
  groups   = [each.value]
  survives = { nodes = 1 }
}

guarantee "a-b" {
  groups   = [group.web]
  survives = { nodes = 1 }
}
