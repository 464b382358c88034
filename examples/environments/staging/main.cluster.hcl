# An environment is a directory, with a state of its own. What both have is in ../modules.

provider "local" {
  mode = "process"
}

cluster "shop-staging" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  for_each = toset(["a", "b", "c"])
  provider = local
}

module "shop" {
  source  = "../modules/shop"
  nodes   = values(node.n)
  workers = 1
}

output "groups" {
  value = module.shop.groups
}
