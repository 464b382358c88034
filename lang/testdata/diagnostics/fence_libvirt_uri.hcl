cluster "c" {
  quorum { model = "majority_node_set" }
}

node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}

fence "hypervisor" {
  agent      = "libvirt"
  parameters = { uri = "qemu+tcp://root:sesame@10.0.9.1/system" }
}
