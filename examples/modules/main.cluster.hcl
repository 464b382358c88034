# One module, called for two teams' groups, on the nodes of this directory.

provider "local" {
  mode = "process"
}

cluster "modules" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  for_each = toset(["a", "b", "c"])
  provider = local
  zone     = "rack-${each.key}"
}

group "base" {
  resource "generic_application" "worker" {
    command = ["clusterplan", "demo", "worker"]
  }
}

module "team" {
  source = "./modules/workers"
  for_each = {
    mail   = { first = "a", queues = ["in", "out"] }
    search = { first = "b", queues = ["index"] }
  }

  nodes      = node.n
  first      = node.n[each.value.first]
  queues     = each.value.queues
  depends_on = [group.base]
}

# Hangs on what this one output needs: the group of the mail team's queue "in".
group "report" {
  depends_on = [module.team["mail"].groups["in"]]

  resource "generic_application" "worker" {
    command = ["clusterplan", "demo", "worker"]
  }
}

guarantee "mail_survives" {
  groups   = values(module.team["mail"].groups)
  survives = { nodes = 1, zones = 1 }
}

output "owners" {
  value = { for name, team in module.team : name => { for queue, g in team.groups : queue => g.owner } }
}
