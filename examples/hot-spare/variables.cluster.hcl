variable "nodes" {
  description = "The nodes, by name. Spares own nothing while a primary can."
  type = map(object({
    zone  = string
    spare = optional(bool, false)
  }))
  nullable = false

  validation {
    condition     = length(var.nodes) >= 3
    error_message = "A majority needs three nodes, and there are ${length(var.nodes)}."
  }

  validation {
    condition     = anytrue([for n in var.nodes : n.spare])
    error_message = "Set spare = true on one of the nodes."
  }
}

variable "services" {
  description = "The web services: where each answers, and which node is its home."
  type = map(object({
    host     = number # within 127.79.0.0/24
    home     = string
    priority = optional(number, 2000)
  }))
}

variable "port" {
  type    = number
  default = 8079
}
