cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}

group "web" {
  resource "generic_application" "app" {
    command = ["true"]
  }
}

moved {
  from = node.n1
}

moved {
  from = local.x
  to   = node.n["1"]
}

moved {
  from = node.n[each.key]
  to   = node.n["1"].zone
}

moved {
  from = cluster
  to   = cluster.c
}

moved {
  from = resource.app
  to   = group.web.app
}

moved {
  from = node.same
  to   = node.same
}

moved {
  from = node.old
  to   = group.old
}

moved {
  from = node.a
  to   = node.n["1"]
}

moved {
  from = node.a
  to   = node.n["2"]
}

moved {
  from = node.b
  to   = node.n["1"]
}

# Around: to the whole block, and back for one of its instances.
moved {
  from = node.x
  to   = node.y
}

moved {
  from = node.y["1"]
  to   = node.x["1"]
}

moved {
  from = group.web.resource.old
  to   = group.other.resource.app
}

moved {
  from = node.n
  to   = node.m
}

moved {
  from = group.web.resource.app
  to   = group.web.resource.app2
}
