variable "size" {
  default = 3
}
variable "token" {
  default   = "abc"
  sensitive = true
}
cluster "c" {
  quorum { model = "majority_node_set" }
  lifecycle {
    precondition {
      condition     = var.size
      error_message = "It is a number."
    }
  }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  lifecycle {
    precondition {
      condition     = tobool(var.token)
      error_message = "What is wrong is not shown."
    }
  }
}
group "web" {
  lifecycle {
    precondition {
      condition     = var.size < 3
      error_message = "That it fails is no error of the definition."
    }
    postcondition {
      condition     = self.state[0] == "o"
      error_message = "A state is text."
    }
  }
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle {
      postcondition {
        condition     = self.user == null ? null : true
        error_message = "Null."
      }
    }
  }
}
check "c" {
  assert {
    condition     = node.n["d"].state == "up"
    error_message = "No such instance."
  }
  assert {
    condition     = [for n in node.n : n.state]
    error_message = "A list."
  }
}
