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

volume "v" {
}

machine "m" {
}

network "m" {
}

locals {
}



provider "locl" {
}

group "g" {
  lifecycle {
    ignore_changes = [description]
  }
  fence "f" {
  }
  dynamic "failover" {
  }
  resource "generic_application" "app" {
    command          = ["true"]
    checkpoint {
      paths = []
    }
  }
}

variable "v" {
  type    = list(network)
  default = []
}

node "s" {
  provider = local
  ssh {
    port = 22
  }
}
