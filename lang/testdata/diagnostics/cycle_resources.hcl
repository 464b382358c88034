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
  resource "generic_application" "a" {
    command    = ["true"]
    depends_on = [resource.b]
  }
  resource "generic_application" "b" {
    command        = ["true"]
    depends_on_any = [resource.c]
  }
  resource "generic_application" "c" {
    command    = ["true"]
    depends_on = [resource.a]
  }
  resource "generic_application" "self" {
    command    = ["true"]
    depends_on = [resource.self]
  }
}
