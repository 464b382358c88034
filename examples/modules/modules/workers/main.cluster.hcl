# A group for each queue, on the given nodes.

variable "nodes" {
  type        = map(node)
  description = "Where the groups may run."
}

variable "first" {
  type        = node
  description = "Where they run as long as it is up."
}

variable "queues" {
  type = set(string)

  validation {
    condition     = length(var.queues) > 0
    error_message = "A team has one queue at least."
  }
}

locals {
  others = [for n in var.nodes : n if n.name != var.first.name]
}

group "queue" {
  for_each         = var.queues
  preferred_owners = concat([var.first], local.others)

  resource "generic_application" "worker" {
    command     = ["clusterplan", "demo", "worker"]
    environment = { QUEUE = group_each.key }
  }
}

output "groups" {
  value       = group.queue
  description = "The groups, by queue."
}
