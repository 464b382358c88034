# Three hosts that are reached over SSH, and a service whose address moves
# between them.

variable "hosts" {
  type        = map(string)
  description = "Address of each host, on which the agents listen and SSH answers."
  default = {
    n1 = "10.77.0.1"
    n2 = "10.77.0.2"
    n3 = "10.77.0.3"
  }
}

variable "address" {
  type        = string
  description = "The service's, in the hosts' network and free."
  default     = "10.77.0.100/24"
}

variable "private_key_file" {
  type        = string
  description = "To log in with; null: what ~/.ssh/config and the agent have."
  default     = null
}

variable "known_hosts_file" {
  type        = string
  description = "The hosts' keys; null: ~/.ssh/known_hosts."
  default     = null
}

provider "ssh" {
  user             = "root"
  private_key_file = var.private_key_file
  known_hosts_file = var.known_hosts_file
}

cluster "web" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  for_each = var.hosts
  name     = each.key
  provider = ssh
  address  = each.value
}

group "web" {
  preferred_owners = values(node.n)

  resource "ip_address" "vip" {
    address = var.address
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", "${split("/", var.address)[0]}:8077"]
    depends_on = [resource.vip]
  }
}

output "url" {
  value = "http://${split("/", var.address)[0]}:8077/"
}
