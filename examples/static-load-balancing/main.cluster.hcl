# Three nodes that all work: each is the first choice of one service, and has
# room for a part of what another leaves behind. clusterplan adds up whether what
# is left has room for everything, before anything fails.

locals {
  services = {
    shop = { home = "a", host = 10 }
    blog = { home = "b", host = 11 }
    mail = { home = "c", host = 12 }
  }
  port = 8082
}

cluster "static-load-balancing" {
  configuration = "static_load_balancing"

  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  name     = each.key

  # Room for two services. With cpu = 3, plan says which service would have none.
  capacity = { cpu = 4, memory = "8GiB" }
}

group "service" {
  for_each = local.services
  name     = each.key
  demand   = { cpu = 2, memory = "2GiB" }

  # Its home first, then the others.
  preferred_owners = concat([node.n[each.value.home]], [for name, n in node.n : n if name != each.value.home])

  # Home again once the node is up and stable.
  failback {
    mode  = "immediate"
    delay = "10s"
  }

  resource "ip_address" "vip" {
    address = cidrhost("127.82.0.0/24", group_each.value.host)
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", "${resource.vip.address}:${local.port}"]
    depends_on = [resource.vip]

    looks_alive {
      tcp = "${resource.vip.address}:${local.port}"
    }
  }
}

# Every plan checks that it holds; one that breaks it is refused.
guarantee "one_node_may_fail" {
  groups   = values(group.service)
  survives = { nodes = 1 }
}

output "urls" {
  value = { for name, s in local.services : name => "http://${cidrhost("127.82.0.0/24", s.host)}:${local.port}/" }
}
