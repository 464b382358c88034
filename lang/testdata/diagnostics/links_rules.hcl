cluster "c" {
  quorum { model = "single_node" }
  link "a" {
    subnet = "10.1.0.0/16"
  }
  link "b" {
    subnet = "10.1.5.0/24"
    role   = "client"
  }
  link "c" {
    subnet = "10.3.0.1/24"
  }
  link "d" {
    subnet = "ten"
  }
}

node "n1" {
  provider = local
}
