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

locals {
  typo_var    = var.adress
  typo_local  = local.typo_vra
  typo_node   = node.n4
  typo_group  = group.grp
  typo_attr   = node.n1.adress
  no_attr     = node.n1.colour
  bare        = n1
  plain       = hello
  root        = node
  key         = node.n1["a"]
  runtime     = node.n1.state
  each        = each.key
  count       = count.index
  res         = resource.app
  machine     = machine.m.address
  function    = uper("a")
  path        = path.cwd
}

variable "address" {
  default = "a"
}

group "g" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}
