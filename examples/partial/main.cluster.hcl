# Not everything has to survive: the shop fails over, the nightly report stays
# down with its node, and leaves the room to the shop.

locals {
  listen = "127.83.0.10:8083"
}

cluster "partial" {
  configuration = "partial"

  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  name     = each.key
  capacity = { cpu = 4 }
}

group "shop" {
  preferred_owners = [node.n["a"], node.n["b"], node.n["c"]]
  priority         = 3000
  demand           = { cpu = 3 }

  failback {
    mode  = "immediate"
    delay = "10s"
  }

  resource "ip_address" "vip" {
    address = split(":", local.listen)[0]
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", local.listen]
    depends_on = [resource.vip]

    is_alive {
      http     = "http://${local.listen}/"
      interval = "10s"
    }
  }
}

# It may depend on the shop. The shop may not depend on it: that would be an error.
group "report" {
  preferred_owners = [node.n["c"]]
  depends_on       = [group.shop]
  priority         = 1000
  demand           = { cpu = 2 }

  failover {
    mode = "none" # stays down with its node, and starts again with it
  }

  resource "generic_application" "worker" {
    command     = ["clusterplan", "demo", "worker"]
    environment = { URL = "http://${local.listen}/" }
  }
}

guarantee "shop_survives" {
  groups       = [group.shop]
  survives     = { nodes = 1 }
  max_downtime = "5s"
}

output "url" {
  value = "http://${local.listen}/"
}
