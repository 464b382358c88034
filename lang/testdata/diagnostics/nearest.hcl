cluster "c" {
  quorum { model = "majority_node_set" }
}

node "a" {
  provider = local
  vote     = 1
}

group "web" {
  depend_on        = []
  preferred_owners = [node.a]
}

move {
  from = node.x
  to   = node.a
}
