# One node, and groups with addresses of their own: clients keep theirs when
# nodes are added later.

variable "listen" {
  type        = string
  default     = "127.78.0.10:8078"
  description = "Where the group web answers."
}

locals {
  ip = split(":", var.listen)[0]
}

cluster "one-node" {
  configuration = "virtual_server"

  quorum {
    model = "single_node"
  }
}

node "only" {
  provider = local
}

group "web" {
  resource "ip_address" "vip" {
    address = local.ip
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", var.listen]
    depends_on = [resource.vip]

    looks_alive {
      tcp = var.listen
    }

    restart {
      threshold = 5
      period    = "1h"
      delay     = "200ms"
    }
  }
}

output "url" {
  value = "http://${var.listen}/"
}
