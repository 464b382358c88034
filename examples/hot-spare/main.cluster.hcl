# Two primaries and a spare that takes over from either. Values stand in
# auto.vars.hcl, their types in variables.cluster.hcl.

locals {
  addresses = { for name, s in var.services : name => cidrhost("127.79.0.0/24", s.host) }
  spares    = [for n in node.n : n if n.spare]
  urls      = { for name, ip in local.addresses : name => "http://${ip}:${var.port}/" }
}

provider "local" {
  mode = "process"
}

cluster "hot-spare" {
  description   = "Two primaries and a spare"
  configuration = "hot_spare"

  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = var.nodes
  name     = each.key
  zone     = each.value.zone
  spare    = each.value.spare
  capacity = { cpu = 4, memory = "8GiB" }
  labels   = { zone = each.value.zone }
}

group "service" {
  for_each         = var.services
  name             = each.key
  preferred_owners = [node.n[each.value.home]]
  possible_owners  = concat([node.n[each.value.home]], local.spares)
  priority         = each.value.priority
  demand           = { cpu = 1, memory = "1GiB" }

  failover {
    threshold = 4
    period    = "6h"
  }

  # The primary takes its groups back: at once, but only when it has been up
  # this long.
  failback {
    mode  = "immediate"
    delay = "10s"
  }

  resource "ip_address" "vip" {
    address = local.addresses[group_each.key]
  }

  resource "generic_application" "server" {
    command     = ["clusterplan", "demo", "web", "--listen", "${resource.vip.address}:${var.port}"]
    environment = { SERVICE = group_each.key }
    depends_on  = [resource.vip]

    looks_alive {
      interval = "2s"
      tcp      = "${resource.vip.address}:${var.port}"
    }

    is_alive {
      interval = "10s"
      http     = local.urls[group_each.key]
    }

    restart {
      threshold    = 2
      period       = "10m"
      delay        = "500ms"
      affect_group = true
    }
  }
}

# Runs where it likes, but not beside the shop, and only once both services are up.
group "report" {
  preferred_owners = [for n in node.n : n if !n.spare]
  depends_on       = values(group.service)
  keep_apart_soft  = [group.service["shop"]]
  priority         = 1000

  resource "generic_application" "worker" {
    command     = ["clusterplan", "demo", "worker"]
    environment = { URL = local.urls["shop"] }
  }
}

output "urls" {
  value = local.urls
}

output "owners" {
  value       = { for name, g in group.service : name => g.owner }
  description = "Where each service runs; known while the cluster runs."
}
