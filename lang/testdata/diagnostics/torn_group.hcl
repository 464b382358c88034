cluster "c" {
  quorum { model = "single_node" }
}

node "n" { provider = local }

group "torn" {
  priority = nonsense.x
  resource "ip_address" "vip" {
    interface = (
    address   = "10.0.0.2"
  }
  resource "generic_application" "app" { command = [resource.vip.id] }
}

group "later" {
  depends_on = [group.torn, group.nowhere]
  resource "ip_address" "vip" {}
}
