cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}

group "web" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}

variable "secret" {
  default   = "10s"
  sensitive = true
}

guarantee "typo" {
  groups   = [group.wbe]
  survives = { nodes = 1 }
}

guarantee "missing" {
  survives = { nodes = 1 }
}

guarantee "text" {
  groups   = ["web"]
  survives = { nodes = 1 }
}

guarantee "nodes" {
  groups   = values(node.n)
  survives = { nodes = 1 }
}

guarantee "unknown" {
  groups     = [group.web]
  survive    = { nodes = 1 }
  max_outage = "1s"
}

guarantee "half" {
  groups   = [group.web]
  survives = { nodes = 1.5 }
}

guarantee "word" {
  groups   = [group.web]
  survives = { nodes = "all" }
}

guarantee "span" {
  groups       = [group.web]
  max_downtime = "soon"
}

guarantee "zero" {
  groups       = [group.web]
  max_downtime = "0s"
}

guarantee "secret" {
  groups       = [group.web]
  max_downtime = var.secret
}

guarantee "twice" {
  groups   = [group.web]
  survives = { nodes = 1 }
}

guarantee "twice" {
  groups   = [group.web]
  survives = { nodes = 1 }
}

guarantee "later" {
  groups       = [group.web]
  max_downtime = node.n["a"].endpoint
  lifecycle {
    prevent_destroy = true
  }
}

output "refers" {
  value = guarantee.half
}
