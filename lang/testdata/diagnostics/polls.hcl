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
  resource "generic_application" "app" {
    command = ["true"]
    looks_alive {
      tcp  = "127.0.0.1:80"
      http = "http://127.0.0.1/"
    }
    is_alive {
      interval = "0s"
      http     = "127.0.0.1/"
    }
  }
  resource "generic_application" "two" {
    command = ["true"]
    looks_alive {
      tcp     = "localhost"
      timeout = "0s"
    }
  }
}
