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
  failback {
    mode = "window"
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "b" {
  failback {
    mode   = "immediate"
    window = "22:00-04:00"
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "c" {
  failback {
    mode   = "window"
    window = "25:00-04:00"
  }
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "zone" {
  failback {
    mode     = "window"
    window   = "22:00-04:00"
    timezone = "Europe/Atlantis"
  }
  resource "ip_address" "vip" {
    address = "127.77.0.13"
  }
}
