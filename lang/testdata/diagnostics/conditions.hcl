variable "size" {
  default = 3
}
cluster "c" {
  quorum { model = "majority_node_set" }
  lifecycle {
    precondition {
      condition     = group.web.priority > 0
      error_message = "It is made before its groups."
    }
    postcondition {
      condition     = node.n["a"].state == "up"
      error_message = "It is made before its nodes."
    }
  }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  lifecycle {
    precondition {
      condition     = node.n["b"].zone == each.key
      error_message = "Names its own block."
    }
    precondition {
      condition     = self.zone != ""
      error_message = "Has no self yet."
    }
    postcondition {
      condition     = self.state == "up" && self.sate == "up"
      error_message = "Has no such attribute."
    }
    postcondition {
      condition     = group.web.state == "online"
      error_message = "Nodes come before groups."
    }
  }
}
group "web" {
  description = self.name
  lifecycle {
    precondition {
      condition     = group.db.state == "online"
      error_message = "It asks the cluster before it is changed."
    }
    precondition {
      condition = var.size > 2
    }
    precondition {
      condition     = true
      error_message = "It names nothing."
    }
    postcondition {
      condition     = group.web.state == "online"
      error_message = "It is called self here."
    }
  }
  lifecycle {
    prevent_destroy = true
  }
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle {
      postcondition {
        condition     = self.owner == "n-a" || group.web.owner == "n-a"
        error_message = "A resource has no owner, and is made with its group."
      }
    }
  }
}
group "db" {
  depends_on = [group.web]
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle {
      create_before_destroy = true
    }
  }
}
guarantee "g" {
  groups   = [group.web]
  survives = { nodes = 1 }
}
check "nothing" {
}
check "twice" {
  assert {
    condition     = group.wbe.state == "online"
    error_message = "Mistyped."
  }
}
check "twice" {
}
check "asks" {
  data "http" "web" {
    url = "http://127.0.0.1/"
  }
  assert {
    condition     = data.http.web.status_code == 200
    error_message = "It does not answer."
  }
}
check "null" {
  assert {
    condition     = node.n["d"].state == "up"
    error_message = "No such instance."
  }
}
output "url" {
  value = group.web.owner
  depends_on = [group.nope, local.x]
  precondition {
    condition     = self.state == "online"
    error_message = "An output is no object."
  }
}
