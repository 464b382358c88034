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

group "g" {
  priority         = "high"
  persistent_state = "on"
  stop_within      = "100"
  demand           = { cpu = "many" }
  preferred_owners = ["n1"]
  possible_owners  = node.n1
  keep_apart       = [node.n1]
  depends_on       = { a = 1 }
  description      = node.n1
  failover {
    threshold = -1
    period    = "a week"
  }
  resource "generic_application" "app" {
    command      = []
    environment  = ["a"]
    log_max_size = "10 meters"
    log_keep     = 1.5
    stop_signal  = "term"
    depends_on   = ["vip"]
    restart {
      affect_group = "perhaps"
    }
  }
  resource "ip_address" "null" {
    address = null
  }
  resource "ip_address" "empty" {
    address = ""
  }
}

group "twice" {
  preferred_owners = [node.n1, node.n2, node.n1]
}

node "named" {
  provider = "local"
  endpoint = "127.0.0.1:1"
}
