scenario "each node fails, and comes back" {
  step "a fails" {
    lose = [node.n["a"]]

    expect {
      group = group.service["shop"]
      owner = node.n["b"]
    }
    expect {
      groups = [group.service["blog"], group.service["mail"]]
      state  = "online"
    }
  }

  step "a is back, and has been up for 10 s" {
    start = [node.n["a"]]
    wait  = "20s"

    expect {
      group = group.service["shop"]
      owner = node.n["a"]
    }
  }
}
