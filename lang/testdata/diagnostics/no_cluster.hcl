node "n1" {
  provider = local
}
