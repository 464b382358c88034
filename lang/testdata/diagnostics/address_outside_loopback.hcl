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
    address = "10.0.0.9/24"
  }
  resource "ip_address" "bad" {
    address = "127.0.0"
  }
}
