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
  resource "ip_address" "six" {
    address = "fd00::9/64"
  }
  resource "ip_address" "link" {
    address = "fe80::1"
  }
  resource "ip_address" "all" {
    address = "224.0.0.1"
  }
  resource "ip_address" "self" {
    address = "::1"
  }
}
