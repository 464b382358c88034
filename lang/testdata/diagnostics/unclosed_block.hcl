cluster "c" {
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}

group "g" {
  failover {
    mode = "none"

  resource "generic_application" "a" {
    command = ["true"]
  }
}

output "x" {
  value = nonsense
}
