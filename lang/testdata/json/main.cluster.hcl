variable "port" {
  type    = number
  default = 7400
}

locals {
  who = "world"
}

cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = { a = 1, b = 2, c = 3 }
  address  = "127.0.0.1:${var.port + each.value}"
}

group "g" {
  preferred_owners = [node.n["b"], node.n["a"]]
  possible_owners  = values(node.n)

  resource "ip_address" "vip" {
    address = "127.0.0.9"
  }

  resource "generic_application" "app" {
    command     = ["echo", "hello ${local.who}", node.n["a"].endpoint]
    environment = { A = 1, B = "two" }
    depends_on  = [resource.vip]
    is_alive {
      interval = "10s"
    }
  }
}

group "h" {
  depends_on = [group.g]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

output "o" {
  value = node.n["a"].zone
}
