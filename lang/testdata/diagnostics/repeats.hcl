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

locals {
  ports = { a = 1, b = 2 }
}

group "list" {
  for_each = ["a"]
}

group "null" {
  for_each = null
}

group "object" {
  for_each = node.n1
}

group "unknown" {
  for_each = toset([node.n1.endpoint])
}

group "both" {
  for_each = {}
  count    = 1
}

group "negative" {
  count = -1
}

group "no_each" {
  description = each.key
  resource "generic_application" "app" {
    command = [each.key, group_each.key, tostring(count.index)]
  }
}

group "g" {
  for_each    = local.ports
  description = group.other["zz"].name
  resource "generic_application" "app" {
    command = [each.key]
  }
  resource "generic_application" "app2" {
    for_each = local.ports
    command  = [resource.app.name]
  }
}

group "other" {
  for_each    = local.ports
  description = group.g.name
}

group "secret" {
  for_each = sensitive(toset(["a"]))
}

node "counted" {
  provider = local
  count    = 2
}
