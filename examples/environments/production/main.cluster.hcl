# An environment is a directory, with a state of its own. What both have is in ../modules.

provider "local" {
  mode = "process"
}

cluster "shop-production" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  for_each = toset(["a", "b", "c", "d", "e"])
  provider = local
}

module "shop" {
  source  = "../modules/shop"
  nodes   = values(node.n)
  workers = 3
}

output "groups" {
  value = module.shop.groups
}
