nodes = {
  east  = { zone = "east" }
  west  = { zone = "west" }
  spare = { zone = "west", spare = true }
}

services = {
  shop = { host = 10, home = "east", priority = 3000 }
  blog = { host = 11, home = "west" }
}
