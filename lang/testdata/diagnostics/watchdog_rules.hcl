cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}

node "alone" {
  provider         = local
  watchdog_timeout = "5s"
}

node "path" {
  provider = local
  watchdog = "watchdog0"
}

node "reset" {
  provider = local
  reset    = "ipmi"
}

node "time" {
  provider         = far
  watchdog         = "/dev/watchdog"
  watchdog_timeout = "2500ms"
  reset            = "sysrq"
}

node "local" {
  provider = local
  reset    = "sysrq"
}

node "witness" {
  provider = far
  role     = "witness"
  watchdog = "/dev/watchdog"
  reset    = "sysrq"
}

node "reached" {
  provider = local
  ssh {
    port = 22
  }
}
