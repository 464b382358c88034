cluster "c" {
  quorum {
    model = "single_node"
  }
}

node "n1" {
  provider = local
}

terraform {
  required_version = ">= 1.0"
}

resource "terraform_data" "x" {
  input = 1
}

data "local_file" "x" {
  filename = "x"
}

policy "x" {
}

group "g" {
  provisioner "local-exec" {
    command = "true"
  }
  resource "generic_application" "a" {
    command = ["true"]
    connection {
      host = "x"
    }
  }
}
