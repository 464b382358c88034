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

cluster "d" {
}

node "n1" {
  provider = local
}

variable "v" {
  default = 1
}

variable "v" {
  default = 1
}

locals {
  a = 1
}

locals {
  a = 2
}

output "o" {
  value = 1
}

output "o" {
  value = 1
}

group "g" {
  failover {
  }
  failover {
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
  resource "ip_address" "app" {
    address = "127.0.0.9"
  }
}

group "g" {
}
