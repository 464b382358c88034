cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = far
  for_each = toset(["1", "2", "3"])
}

fence "here" {
  agent = "local"
  nodes = [node.n["2"]]
}

fence "late" {
  agent = "fence_ipmilan"
  delay = "-1s"
}
