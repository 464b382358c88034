cluster "c" {
  quorum { model = "single_node" }
}
node "n1" { provider = local }

variable "ids" {
  type    = map(string)
  default = { a = "one" }
}
variable "secret" {
  type      = string
  default   = "x"
  sensitive = true
}

import {
  to = cluster
  id = "x"
}
import {
  to = group.sql.resource.vip
  id = "x"
}
import {
  to = node.n[each.key]
  id = "x"
}
import {
  for_each = var.ids
  to       = node.n["a"][each.key]
  id       = "x"
}
import {
  to = "${var.secret}"
  id = "x"
}
import {
  to = machine.m
  id = "x"
}
import {
  to = group.web
  id = node.n1.endpoint
}
import {
  to = group.worker
  id = each.value
}
import {
  to = group.a
  id = var.secret
}
import {
  to = group.b
  id = ""
}
import {
  to = group.c
  id = "c"
}
import {
  to = group.c
  id = "d"
}
import {
  to       = group.d
  id       = "d"
  provider = local
}
import {
  to = group.e
}
import {
  for_each = { a = "1", b = "2" }
  to       = group.f
  id       = each.value
}
import {
  for_each = ["a"]
  to       = group.g[each.key]
  id       = each.value
}
