# Two nodes and a device that both see: either of them may run the cluster
# alone. On one machine the device is a file; on real hosts it is a small LUN
# (/dev/disk/by-id/...), or a file on storage that both have mounted.

variable "device" {
  type        = string
  default     = "/tmp/clusterplan-single-quorum.device"
  description = "The quorum device: the same path on both nodes."
}

variable "listen" {
  type        = string
  default     = "127.80.0.10:8080"
  description = "Where the group web answers."
}

cluster "single-quorum" {
  quorum {
    model  = "single_quorum"
    device = var.device
  }
}

node "a" {
  provider = local
}

node "b" {
  provider = local
}

group "web" {
  preferred_owners = [node.a, node.b]

  resource "ip_address" "vip" {
    address = split(":", var.listen)[0]
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", var.listen]
    depends_on = [resource.vip]
  }
}

output "url" {
  value = "http://${var.listen}/"
}
