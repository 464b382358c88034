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

group "a" {
  depends_on = [group.b]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "b" {
  depends_on = [group.c]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "c" {
  depends_on = [group.a]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

group "d" {
  depends_on = [group.d]
  resource "generic_application" "app" {
    command = ["true"]
  }
}

