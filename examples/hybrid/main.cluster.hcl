# Each service has its own answer to a failure, and each says which.

locals {
  services = {
    shop  = { home = "a", host = 10, failover = "automatic", window = null }
    sql   = { home = "b", host = 11, failover = "manual", window = "02:00-04:00" }
    cache = { home = "c", host = 12, failover = "none", window = null }
  }
  port = 8084
}

cluster "hybrid" {
  configuration = "hybrid"

  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  name     = each.key
}

group "service" {
  for_each         = local.services
  name             = each.key
  preferred_owners = concat([node.n[each.value.home]], [for name, n in node.n : n if name != each.value.home])

  failover {
    mode = each.value.failover
  }

  # Only for those with a window: a dynamic block with one element, or none.
  dynamic "failback" {
    for_each = each.value.window == null ? [] : [each.value.window]

    content {
      mode     = "window"
      window   = failback.value
      timezone = "Europe/Stockholm"
    }
  }

  resource "ip_address" "vip" {
    address = cidrhost("127.84.0.0/24", group_each.value.host)
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", "${resource.vip.address}:${local.port}"]
    depends_on = [resource.vip]
  }
}

output "urls" {
  value = { for name, s in local.services : name => "http://${cidrhost("127.84.0.0/24", s.host)}:${local.port}/" }
}
