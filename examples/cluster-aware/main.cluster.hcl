# A group whose program knows its cluster: who owns it, under which epoch, and how
# often it has been started anywhere, counted in the cluster's key-value store. Its
# notes go with it from node to node (checkpoint).

cluster "cluster-aware" {
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

group "counter" {
  preferred_owners = [node.n1, node.n2]

  resource "generic_application" "app" {
    command = ["bash", "-c", file("${path.module}/app.bash"), "app", "notes.txt"]

    looks_alive {
      interval = "1s"
    }

    checkpoint {
      paths = ["notes.txt"] # in each node's own directory
    }
  }
}
