clusterplan {
  encryption {
    key = "x"
  }
  backend "git" {
    url = "x"
  }
}

cluster "a" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
}

variable "v" {
  kind = string
  validation {
    test          = true
    condition     = true
    error_message = "No."
  }
}

output "o" {
  value = 1
  note  = "x"
}

colour = "blue"
