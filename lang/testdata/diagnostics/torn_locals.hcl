locals {
  vip = "10.0.0.1"
  bad = (
  other = "x"
}

cluster "c" {
  description = local.other
  quorum { model = "single_node" }
}

node "n" { provider = local }

group "g" {
  description      = local.vip
  preferred_owners = [node.n]
  resource "ip_address" "vip" { address = local.bad }
}

output "o" { value = local.bad }
output "p" { value = [local.nothing, "${node.n.id}${local.other}"] }
