clusterplan {
  required_version = "~> 0.1"
  backend "local" {
    path = "features.state.json"
  }
}

variable "sites" {
  type = map(object({
    zone  = string
    port  = optional(number)
    spare = optional(bool, false)
  }))
  default = {
    a = { zone = "north", port = 7401 }
    b = { zone = "south" }
    c = { zone = "south", spare = true }
  }
  validation {
    condition     = length(var.sites) >= 3
    error_message = "A majority needs three nodes."
  }
}

variable "password" {
  default   = "s3cret"
  sensitive = true
}

locals {
  south     = [for k, n in node.n : n if n.zone == "south"]
  endpoints = { for k, n in node.n : k => n.endpoint }
}

provider "local" {}

cluster "features" {
  description   = "All of it"
  configuration = "hot_spare"

  quorum {
    model = "majority_node_set"
  }

  heartbeat {
    profile  = "custom"
    interval = "100ms"
  }

  lifecycle {
    prevent_destroy = true
  }
}

node "n" {
  provider = local
  for_each = var.sites
  address  = each.value.port == null ? null : "127.0.0.1"
  port     = each.value.port
  zone     = each.value.zone
  spare    = each.value.spare
  capacity = { cpu = 1.5, memory = "8GiB", disks = 2 }
  labels   = { pool = upper(each.key) }
}

node "witness" {
  provider = local
  name     = "w"
  role     = "witness"
  votes    = 1
}

group "storage" {
  preferred_owners = [node.n["a"]]
  possible_owners  = values(node.n)
  priority         = 3000
  stop_within      = "60s"
  depends_on       = []

  failover {
    mode   = "manual"
    period = "1d"
  }

  resource "generic_application" "array" {
    separate_monitor = true
    command      = ["array", "--password", var.password, node.n["b"].endpoint]
    environment  = { EMPTY = "", PEERS = jsonencode(local.endpoints) }
    log_max_size = "1048576"
    stop_timeout = "120s"
    restart {
      action    = "none"
      threshold = 0
    }
  }
}

group "shard" {
  for_each         = { for k, n in node.n : k => n if !n.spare }
  name             = "shard-of-${each.key}"
  preferred_owners = [each.value]
  depends_on       = concat([group.storage], [for k, g in group.shard : g if each.key == "b" && k == "a"])
  keep_apart_soft  = [for k, g in group.shard : g if k != each.key]
  demand           = { cpu = "0.5", memory = "1GiB" }

  failback {
    mode   = "window"
    window = "22:00-04:00"
  }

  resource "ip_address" "vip" {
    address = cidrhost("127.77.0.0/24", index(keys(node.n), group_each.key) + 1)
  }

  resource "generic_application" "web" {
    for_each   = toset(["x", "y"])
    command    = ["web", "${resource.vip.address}:80", each.key, group_each.value.zone, group_each.value.endpoint]
    depends_on = [resource.vip]
    looks_alive {
      tcp = "${resource.vip.address}:80"
    }
  }

  resource "generic_application" "watch" {
    command        = [resource.web["x"].command[0], path.module]
    depends_on     = values(resource.web)
    depends_on_any = [resource.vip, resource.web["y"]]
  }
}

group "counted" {
  count      = 2
  depends_on = count.index == 0 ? [] : [group.counted[0]]

  resource "generic_application" "app" {
    command = ["app", tostring(group_each.key), local.south[0].name]
  }
}

output "names" {
  value = [for k, g in group.shard : g.name]
}

output "state" {
  value = { for k, g in group.shard : k => "${g.name} is ${g.state}" }
}

output "owner" {
  value = group.storage.owner
}

output "node" {
  value = node.witness.labels
}

output "secret" {
  value     = { password = var.password }
  sensitive = true
}

output "count" {
  value = length(group.counted)
}
