cluster "c" {
  quorum {
    model = "majority_node_set"
  }
  lifecycle {
    create_before_destroy = true
    replace_triggered_by  = [node.n1]
    ignore_changes        = [heartbeat.lease, quorum, name]
  }
}

node "n1" {
  provider = local
  labels   = { rack = "1" }
  lifecycle {
    prevent_destroy       = "yes"
    create_before_destroy = true
    ignore_changes        = [labels["rack"], labels.rack, zon, endpoint, provider]
  }
}

node "n2" {
  provider = local
  lifecycle {
    create_before_destroy = false
    ignore_changes        = all
    replace_triggered_by  = [node.n1.zone, node.n1.zon, node.n4, group.web.resource.app.command, group.web.resource.ap]
  }
}

node "n3" {
  provider = local
  lifecycle {
    ignore_changes       = "zone"
    replace_triggered_by = node.n1
  }
}

group "web" {
  lifecycle {
    create_before_destroy = true
    ignore_changes        = [preferred_owners[0], failover.mod]
    replace_triggered_by  = [each.key, resource.app]
  }
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle {
      create_before_destroy = true
      ignore_changes        = [command, restart.threshold]
    }
  }
}
