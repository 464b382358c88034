cluster "c" {
  quorum { model = "majority_node_set" }
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}

fence "unknown" {
  agent = "fence_ipmilan"
  nodes = [node.m]
}

fence "path" {
  agent = "fence_a"
  when  = "sometimes"
}

fence "path" {
  agent = "fence_a"
}

fence "agentless" {
  nodes = [node.n["1"]]
}

group "g" {
  fence "inside" {
  }
  resource "generic_application" "a" { command = [fence.path] }
}
