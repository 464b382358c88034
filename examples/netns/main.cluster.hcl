# Three nodes in network namespaces of this machine, and a service whose address
# moves between them. Needs root.

provider "local" {
  mode   = "netns"
  subnet = "10.77.0.0/24"
}

cluster "lab" {
  description = "Nodes whose links can be cut"

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

group "web" {
  preferred_owners = [node.n1, node.n2, node.n3]

  resource "ip_address" "vip" {
    address = "10.77.0.100/24"
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", "10.77.0.100:80"]
    depends_on = [resource.vip]
  }
}

output "url" {
  value = "http://10.77.0.100/"
}
