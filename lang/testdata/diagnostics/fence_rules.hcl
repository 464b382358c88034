cluster "c" {
  quorum { model = "majority_node_set" }
}

variable "secret" {
  default   = "hunter2\nhunter3"
  sensitive = true
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}

fence "odd" {
  agent      = "ipmi"
  nodes      = [node.n["1"], node.n["2"]]
  level      = 12
  plugs      = { n-3 = "4" }
  parameters = { "a b" = "1", action = "on", password = var.secret }
}

fence "here" {
  agent      = "local"
  action     = "reboot"
  parameters = { x = "y" }
}

fence "path" {
  agent   = "sbin/fence_mine"
  timeout = "1ms"
  name    = "here"
}

group "g" {
  resource "generic_application" "a" { command = ["true"] }
}
