# What every environment of the shop has.

variable "nodes" {
  type = list(node)
}

variable "workers" {
  type        = number
  description = "How many groups work off orders."
}

group "orders" {
  count            = var.workers
  possible_owners  = var.nodes
  preferred_owners = [element(var.nodes, count.index)]

  resource "generic_application" "worker" {
    command     = ["clusterplan", "demo", "worker"]
    environment = { SHARD = "${group_each.key}/${var.workers}" }
  }
}

guarantee "orders_survive" {
  groups   = group.orders
  survives = { nodes = 1 }
}

output "groups" {
  value = group.orders[*].name
}
