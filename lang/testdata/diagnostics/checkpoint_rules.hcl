cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}

group "g" {
  resource "ip_address" "vip" {
    address = "127.77.0.9"
    checkpoint {
      paths = ["/var/lib/vip"]
    }
  }

  resource "generic_application" "both" {
    command = ["app"]
    checkpoint {
      paths   = ["/var/lib/app"]
      command = ["dump"]
      restore = ["load"]
    }
  }

  resource "generic_application" "half" {
    command = ["app"]
    checkpoint {
      command = ["dump"]
    }
  }

  resource "generic_application" "paths" {
    command = ["app"]
    checkpoint {
      paths = ["/var/lib/../app", ".", "data/x", "/srv/app"]
    }
  }

  resource "generic_application" "again" {
    command = ["app"]
    checkpoint {
      paths = ["/srv/app/state"]
    }
  }
}
