# What the team expects of this cluster, checked in CI:
#
#   clusterplan simulate examples/hot-spare --scenario examples/hot-spare

scenario "the shop's primary dies" {
  description = "The spare takes the shop over, and gives it back once the primary has been up for a while."

  step "power fails" {
    lose = [node.n["east"]]

    expect {
      quorum = true
    }
    expect {
      group        = group.service["shop"]
      owner        = node.n["spare"]
      max_downtime = "900ms"
    }
    expect {
      group        = group.service["blog"]
      owner        = node.n["west"]
      max_downtime = "0s"
    }
  }

  step "power is back" {
    start = [node.n["east"]]
    wait  = "5s"

    expect {
      group = group.service["shop"]
      owner = node.n["spare"] # failback waits for 10 s
    }
  }

  step "the primary has been up for 10 s" {
    wait = "10s"

    expect {
      group        = group.service["shop"]
      owner        = node.n["east"]
      max_downtime = "500ms"
    }
  }
}

scenario "a zone is lost, then cut off" {
  step "west burns down" {
    lose = [zone.west]

    expect {
      quorum = false
    }
    expect {
      groups = [group.service, group.report]
      owner  = null # the minority stops what it runs
    }
  }

  step "and is rebuilt" {
    start = [zone.west]
    wait  = "30s"

    expect {
      quorum = true
    }
    expect {
      groups = [group.service, group.report]
      state  = "online"
    }
  }

  step "its switch fails" {
    isolate = [node.n["west"]]

    expect {
      group        = group.service["blog"]
      not_on       = [node.n["west"]]
      max_downtime = "900ms"
    }
  }

  step {
    heal = true
  }
}

scenario "maintenance" {
  step "drain east" {
    drain = [node.n["east"]]

    expect {
      group        = group.service["shop"]
      owner        = node.n["spare"]
      max_downtime = "500ms"
    }
  }

  step "nobody sends the shop back before it is done" {
    move {
      group = group.service["shop"]
      to    = node.n["east"]
    }

    expect {
      refused = true
    }
  }

  step "done" {
    resume = [node.n["east"]]
    wait   = "20s"

    expect {
      group = group.service["shop"]
      owner = node.n["east"]
    }
  }
}
