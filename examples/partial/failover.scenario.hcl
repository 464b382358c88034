scenario "the report's node fails" {
  step "c fails" {
    lose = [node.n["c"]]

    expect {
      group        = group.shop
      owner        = node.n["a"]
      max_downtime = "0s"
    }
    expect {
      group = group.report
      owner = null
    }
  }

  step "c is back" {
    start = [node.n["c"]]
    wait  = "10s"

    expect {
      group = group.report
      owner = node.n["c"]
    }
  }
}

scenario "the shop's node fails" {
  step "a fails" {
    lose = [node.n["a"]]

    expect {
      group = group.shop
      owner = node.n["b"]
    }
  }
}
