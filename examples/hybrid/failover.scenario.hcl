scenario "automatic" {
  step "the shop's node fails" {
    lose = [node.n["a"]]

    expect {
      group = group.service["shop"]
      owner = node.n["b"]
    }
  }
}

scenario "manual" {
  step "the database's node fails" {
    lose = [node.n["b"]]
    wait = "1m"

    expect {
      group = group.service["sql"]
      owner = null
    }
  }

  step "an operator decides" {
    move {
      group = group.service["sql"]
      to    = node.n["a"]
    }
    wait = "5s"

    expect {
      group = group.service["sql"]
      owner = node.n["a"]
    }
  }
}

scenario "none" {
  step "the cache's node fails" {
    lose = [node.n["c"]]
    wait = "1m"

    expect {
      group = group.service["cache"]
      owner = null
    }
  }

  step "it is back" {
    start = [node.n["c"]]
    wait  = "10s"

    expect {
      group = group.service["cache"]
      owner = node.n["c"]
    }
  }
}
