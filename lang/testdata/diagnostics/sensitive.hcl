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

variable "secret" {
  default   = "s3cret"
  sensitive = true
}

variable "checked" {
  default   = "s3cret"
  sensitive = true
  validation {
    condition     = length(var.checked) > 100
    error_message = "Too short: ${var.checked}."
  }
}

output "leak" {
  value = { a = [var.secret] }
}

output "kept" {
  value     = var.secret
  sensitive = true
}

output "shown" {
  value = nonsensitive(var.secret)
}

group "g" {
  persistent_state = var.secret
  resource "generic_application" "app" {
    command = ["true"]
  }
}
