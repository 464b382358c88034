# Three nodes on this machine, each an agent process of its own, and two groups.

variable "address" {
  type        = string
  default     = "127.77.0.10:8077"
  description = "Where the group web answers; any address in 127/8 will do."

  validation {
    condition     = can(regex("^127\\.[0-9.]+:[0-9]+$", var.address))
    error_message = "Local processes can only share an address in 127/8, as 127.77.0.10:8077."
  }
}

locals {
  ip = split(":", var.address)[0]
}

provider "local" {
  mode = "process"
}

cluster "quickstart" {
  description = "A first cluster"

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

group "web" {
  preferred_owners = [node.n1, node.n2, node.n3]

  failback {
    mode  = "immediate"
    delay = "5s"
  }

  resource "ip_address" "vip" {
    address = local.ip
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", var.address]
    depends_on = [resource.vip]

    is_alive {
      http     = "http://${var.address}/"
      interval = "10s"
    }
  }
}

group "worker" {
  preferred_owners = [node.n2, node.n3, node.n1]
  depends_on       = [group.web]

  resource "generic_application" "worker" {
    command     = ["clusterplan", "demo", "worker"]
    environment = { URL = "http://${var.address}/" }
  }
}

output "url" {
  value = "http://${var.address}/"
}
