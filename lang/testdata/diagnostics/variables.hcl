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

variable "needed" {
  type = string
}

variable "number" {
  type    = number
  default = "many"
}

variable "odd" {
  type    = object({ a = string, b = optional(number, 3) })
  default = { a = "x", b = "y" }
}

variable "notnull" {
  nullable = false
  default  = null
}

variable "checked" {
  default = 5
  validation {
    condition     = var.checked > 10
    error_message = "It is ${var.checked}, and more than ten is needed."
  }
  validation {
    condition     = node.n1.name == "x"
    error_message = "No."
  }
}

variable "flag" {
  sensitive = "maybe"
  default   = foo
}
