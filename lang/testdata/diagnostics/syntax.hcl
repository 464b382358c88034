cluster "c" {
  quorum {
    model = 
  }
