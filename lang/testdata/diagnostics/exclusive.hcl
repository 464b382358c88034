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
  resource "script" "array" {
    start = ["/usr/local/bin/array", "attach"]
  }
}
