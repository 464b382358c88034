cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n1" {
  provider = local
}

node "n2" {
  provider = local
}

node "n3" {
  provider = local
}

group "a" {
  resource "ip_address" "vip" {
    address = "127.77.0.9"
  }
}

group "b" {
  resource "ip_address" "vip" {
    address = "127.77.0.9/8"
  }
}
