# A network, three virtual machines on it, a node on each, and a service whose
# address moves between them: one apply makes all of it, from nothing.

variable "uri" {
  type        = string
  description = "The hypervisor's libvirt."
  default     = "qemu:///system"
}

variable "image" {
  type        = string
  description = "Where vmlinuz and initrd are, as image-tiny/build makes them."
  default     = "image-tiny"
}

variable "key" {
  type        = string
  description = "The SSH key to log in to the machines with; its public half lies beside it."
  default     = "~/.ssh/id_ed25519"
}

variable "accelerator" {
  type        = string
  description = "kvm, tcg (emulation), or auto: kvm where a guest comes up under it."
  default     = "auto"
}

provider "libvirt" {
  uri                 = var.uri
  ssh_public_key_file = "${var.key}.pub"

  fence {
    enabled = false # leases are enough for this group; docs/providers.md has what turns a hung machine off
  }
}

provider "ssh" {
  user             = "root"
  private_key_file = var.key
}

network "lab" {
  provider = libvirt
  subnet   = "10.88.0.0/24"
}

machine "n" {
  for_each    = toset(["n1", "n2", "n3"])
  name        = each.key
  provider    = libvirt
  kernel      = "${var.image}/vmlinuz"
  initrd      = "${var.image}/initrd"
  cmdline     = "console=ttyS0 quiet panic=-1 random.trust_bootloader=on cryptomgr.notests"
  memory      = "256MiB"
  network     = network.lab
  accelerator = var.accelerator
}

cluster "lab" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  for_each = machine.n
  name     = each.key
  provider = ssh
  address  = each.value.address # known once the machine is there

  ssh {
    host_key = each.value.ssh_host_key
  }
}

group "web" {
  preferred_owners = values(node.n)

  resource "ip_address" "vip" {
    address = "10.88.0.100/24"
  }

  resource "generic_application" "server" {
    command    = ["clusterplan", "demo", "web", "--listen", "10.88.0.100:8077"]
    depends_on = [resource.vip]
  }
}

output "url" {
  value = "http://10.88.0.100:8077/"
}
