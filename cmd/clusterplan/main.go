// Command clusterplan plans, builds and runs failover clusters from a
// definition. What it does lies in internal/command (a file a command),
// internal/run (the way from a definition to an apply) and internal/view (what
// people and programs read).
package main

import (
	"os"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/command"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

func main() {
	// The processes that a node keeps running come first: they need none of
	// the command line's machinery, and there is one of them per program.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "monitor":
			os.Exit(monitor.Main(os.Args[2:]))
		case "guard":
			os.Exit(monitor.GuardMain(os.Args[2:]))
		}
	}
	os.Exit(command.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
