cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}


