variable "hidden" {
  default   = ["10.3.0.0/24"]
  sensitive = true
}

cluster "c" {
  dynamic "quorum" {
    for_each = ["single_node"]
    content {
      model = quorum.value
    }
  }
  quorum {
    model = "majority_node_set"
  }
  dynamic "link" {
    for_each = [node.n["a"].endpoint == "x"]
    content {
      subnet = "10.0.0.0/24"
    }
  }
  dynamic "link" {
    for_each = toset([node.n["a"].zone])
    labels   = ["one", "two"]
    content {
      subnet = "10.0.0.0/24"
    }
  }
  dynamic "link" {
    for_each = var.hidden
    labels   = [link.key]
    content {
      subnet = link.value
    }
  }
  dynamic "link" {
    for_each = ["10.1.0.0/24", "10.2.0.0/24"]
    labels   = ["same"]
    content {
      subnet = link.value
    }
  }
  dynamic "lnik" {
    for_each = []
    content {}
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  zone     = "z"
}

group "g" {
  dynamic "resource" {
    for_each = ["ip_address"]
    content {}
  }
  dynamic "failover" {
    for_each = [1, 2]
    content {
      mode = failover.values
    }
  }
  dynamic "failback" {
    for_each = node.n["a"].endpoint == "x" ? [1] : []
    content {
      mode = "prevent"
    }
  }
}

group "h" {
  dynamic "failover" {
    for_each = [1, 2]
    content {
      mode = "manual"
    }
  }
  dynamic "failback" {
    for_each = node.n["a"]
    iterator = each
    content {
      mode = "prevent"
    }
  }
  dynamic "failback" {
    for_each = 7
    content {
      mode = "prevent"
    }
  }
}

group "i" {
  dynamic "failback" {
    for_each = node.n["a"]
    content {
      mode = "prevent"
    }
  }
  dynamic "failover" {
    for_each = ["a"]
    content {
      mode = failover.value
    }
    content {
      mode = "none"
    }
  }
  dynamic "failover" {
    for_each = ["a"]
    content {
      mod = failover.value
    }
  }
}
