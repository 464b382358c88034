clustre "c" {
}

cluster "c" {
  quorom {
    model = "majority_node_set"
  }
  quorum {
    modle = "majority_node_set"
  }
}

node "n1" {
  provder = local
}

group "g" {
  resource "ip_adress" "vip" {
    address = "127.0.0.9"
  }
  resource "network_name" "name" {
    name = "x"
  }
  resource "generic_application" "app" {
    comand = ["true"]
    is_alive {
      every = "1s"
    }
  }
}
