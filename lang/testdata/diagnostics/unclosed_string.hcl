cluster "a" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}

variable "size" {
  type = numbers
}

group "first" {
  preferred_owners = [node.n["a"]]
  depends_on       = [group.last, group.none]

  resource "generic_application" "server" {
    command = ["serve", "${var.name}]
  }
}

variable "name" {
  type    = string
  default = "x"
}

group "last" {
  preferred_owners = [node.n["z"]]
  colour           = "blue"

  resource "generic_application" "server" {
    command = ["serve", "--port", "80"]
  }
}
