cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}

removed {
  lifecycle {
    destroy = false
  }
}

removed {
  from    = group.a
  destroy = "no"
}

removed {
  from    = group.b
  destroy = true
  lifecycle {
    destroy = true
  }
}

removed {
  from = group.c.resource.app
  lifecycle {
    destroy = false
  }
}

removed {
  from = group.d
}

removed {
  from = group.d
}

removed {
  from = node.n
}

removed {
  from = node.n["2"]
}

moved {
  from = group.e
  to   = group.f
}

removed {
  from = group.e
}
