cluster "c" {
}

node "n1" {
  provider = local
}
